"""fal's queue: submit, status, result, cancel (fal-protocol §3). One exchange each; nothing is repeated here.

    submit ─▶ Accepted ─▶ status … status ─▶ result          whether a call may be repeated: §13.1, the
                 └──────▶ cancel                             caller's business; what was sent: TransportError

The key goes only to URLs that `Hosts` trusts: a forged URL, in a reply or in a state file, is replaced by the
one made from endpoint and id.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urljoin

from falbatch.errors import HttpError, ReplyError
from falbatch.fal.endpoint import EndpointId
from falbatch.fal.exchange import CutReply, OversizeReply, Reply, label_of
from falbatch.fal.options import SubmitOptions
from falbatch.fal.wire import (
    Accepted,
    CancelAnswer,
    Progress,
    Result,
    is_request_id,
    parse_accepted,
    parse_cancel,
    parse_error,
    parse_progress,
    parse_result,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falbatch.fal.auth import Credentials
    from falbatch.fal.hosts import Hosts

__all__ = ["CancelAnswer", "QueueClient", "RequestRef", "SubmitOptions"]

SUBMIT_TIMEOUT_S: Final = 60.0
"""A submit stores a payload and answers; longer than this and its fate is unknown anyway (SDKs: 120)."""
STATUS_TIMEOUT_S: Final = 30.0
"""A small lookup; a late answer is stale."""
RESULT_TIMEOUT_S: Final = 120.0
"""Results may be megabytes over slow lines, and short-lived (§3.6): be patient."""

MAX_RESULT_BYTES: Final = 256 * 1024 * 1024
"""Inline media (`sync_mode`) reach tens of MB; more than this in memory is somebody's mistake."""
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""For all other replies: hundreds of bytes, but for logs and echoed inputs."""
MAX_REDIRECTS: Final = 3

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PATHS: Final[Mapping[str, str]] = {"status": "/status", "response": "", "cancel": "/cancel"}
_NO_OPTIONS: Final = SubmitOptions()


class Exchange(Protocol):
    """What this client needs of a transport; `falbatch.fal.transport.Transport` is one."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
        max_bytes: int,
    ) -> Reply: ...


class RequestLike(Protocol):
    """How a request is named; `RequestRef` is one, and so may be a record of the caller's."""

    @property
    def request_id(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def status_url(self) -> str | None: ...
    @property
    def response_url(self) -> str | None: ...
    @property
    def cancel_url(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class RequestRef:
    """A request at fal. URLs that are missing or not trusted are rebuilt from endpoint and id."""

    request_id: str
    """A UUID."""
    endpoint: str
    """The id it was submitted to, in full."""
    status_url: str | None = None
    response_url: str | None = None
    cancel_url: str | None = None


class QueueClient:
    """Calls fal's queue through `transport`. Stateless but for its settings; safe to share between tasks.

    Failures: TransportError (no reply), HttpError (a status that is no success), ReplyError (a success that
    makes no sense), ValueError (an endpoint or request id that is none; nothing was sent).
    """

    def __init__(
        self, transport: Exchange, hosts: Hosts, credentials: Credentials, *, user_agent: str = "falbatch"
    ) -> None:
        self._transport = transport
        self._hosts = hosts
        self._credentials = credentials
        self._headers: Mapping[str, str] = {
            "authorization": credentials.header(),
            "user-agent": user_agent,
            "accept": "application/json, */*",
        }

    async def submit(
        self,
        endpoint: str,
        body: bytes,
        options: SubmitOptions = _NO_OPTIONS,
        *,
        timeout_s: float = SUBMIT_TIMEOUT_S,
    ) -> Accepted:
        """POST `body` (the model's input: a JSON object, encoded) to `endpoint`. This call costs money.

        Any 2xx is an acceptance (§15). ReplyError.request_id names the request when the body broke but
        the reply's header survived. A redirect is an HttpError: a redirected POST may run twice.
        """
        target = _endpoint(endpoint)
        url = f"{self._hosts.queue}/{target.submit_path}"
        call = label_of("POST", url)
        headers = {**self._headers, "content-type": "application/json", **options.render()}
        try:
            reply = await self._transport.request(
                "POST", url, headers=headers, body=body, timeout_s=timeout_s, max_bytes=MAX_ANSWER_BYTES
            )
        except CutReply as error:
            if 200 <= error.status < 300 and is_request_id(error.request_id):
                raise ReplyError(str(error), request_id=error.request_id.lower()) from error
            raise
        except OversizeReply as error:
            self._raise_for_status(error.head, call)
            if is_request_id(error.request_id):
                raise
            raise ReplyError(str(error)) from error
        self._raise_for_status(reply, call)

        def url_for(request_id: str, what: str, given: str) -> str:
            return given if self._hosts.trusts(given) else self._rebuilt(target, request_id, what)

        return parse_accepted(reply.headers, reply.body, call=call, url_for=url_for)

    async def status(self, request: RequestLike, *, timeout_s: float = STATUS_TIMEOUT_S) -> Progress:
        """How far `request` is, without logs. 404 (unknown or expired) is an HttpError."""
        url = self._address(request, "status", request.status_url)
        reply, call = await self._get(url, timeout_s, MAX_ANSWER_BYTES)
        return parse_progress(reply.headers, reply.body, call=call)

    async def result(self, request: RequestLike, *, timeout_s: float = RESULT_TIMEOUT_S) -> Result:
        """What the model answered. A failed request answers here with its own status: an HttpError (§3.4)."""
        url = self._address(request, "response", request.response_url)
        reply, call = await self._get(url, timeout_s, MAX_RESULT_BYTES)
        return parse_result(reply.status, reply.headers, reply.body, call=call)

    async def cancel(self, request: RequestLike, *, timeout_s: float = STATUS_TIMEOUT_S) -> CancelAnswer:
        """Ask fal to drop `request`. Idempotent; ACCEPTED is a wish, the status tells what came of it."""
        url = self._address(request, "cancel", request.cancel_url)
        reply = await self._transport.request(
            "PUT", url, headers=self._headers, body=None, timeout_s=timeout_s, max_bytes=MAX_ANSWER_BYTES
        )
        answer = parse_cancel(reply.status, reply.body)
        if answer is None:
            raise self._error(reply, label_of("PUT", url))
        return answer

    async def _get(self, url: str, timeout_s: float, max_bytes: int) -> tuple[Reply, str]:
        """GET, following a few redirects that stay where the key may go. The reply is a success."""
        redirects = 0
        while True:
            reply = await self._transport.request(
                "GET", url, headers=self._headers, body=None, timeout_s=timeout_s, max_bytes=max_bytes
            )
            target = _joined(url, reply.headers.get("location", ""))
            may_follow = reply.status in _REDIRECTS and target != url and self._hosts.trusts(target)
            if not may_follow or redirects == MAX_REDIRECTS:
                break
            redirects += 1
            url = target
        call = label_of("GET", url)
        self._raise_for_status(reply, call)
        return reply, call

    def _raise_for_status(self, reply: Reply, call: str) -> None:
        if not 200 <= reply.status < 300:
            raise self._error(reply, call)

    def _error(self, reply: Reply, call: str) -> HttpError:
        return parse_error(reply.status, reply.headers, reply.body, call=call, redact=self._credentials.redact)

    def _address(self, request: RequestLike, what: str, given: str | None) -> str:
        if given and self._hosts.trusts(given):
            return given
        if not is_request_id(request.request_id):
            raise ValueError(f"{request.request_id!r} is not a request id: fal's are UUIDs")
        return self._rebuilt(_endpoint(request.endpoint), request.request_id, what)

    def _rebuilt(self, endpoint: EndpointId, request_id: str, what: str) -> str:
        """The app-only form (§2): full ids in these paths answer 405."""
        return f"{self._hosts.queue}/{endpoint.app_path}/requests/{request_id}{_PATHS[what]}"


@lru_cache(maxsize=256)
def _endpoint(text: str) -> EndpointId:
    """A batch uses a handful of endpoints, thousands of times each."""
    return EndpointId.parse(text)


def _joined(url: str, location: str) -> str:
    """Where a redirect points; `url` itself, which is not followed, when that is no URL."""
    try:
        return urljoin(url, location)
    except ValueError:
        return url
