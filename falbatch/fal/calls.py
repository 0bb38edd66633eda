"""What every client of fal's does alike: the key's header, a call's URL, and errors without secrets."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from falbatch.errors import ReplyError
from falbatch.exactjson import parse_json
from falbatch.fal.endpoint import EndpointId
from falbatch.fal.exchange import label_of
from falbatch.fal.problems import parse_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from falbatch.errors import HttpError
    from falbatch.fal.auth import Credentials
    from falbatch.fal.exchange import Exchange, Reply

_MAX_FORMED = 256  # a batch uses a handful of endpoints, thousands of times each


@lru_cache(maxsize=_MAX_FORMED)
def endpoint_of(text: str) -> EndpointId:
    """The parts of an endpoint id; ValueError, in words for the user, when it is none."""
    return EndpointId.parse(text)


@lru_cache(maxsize=_MAX_FORMED)
def call_path(endpoint: str, path: str) -> str:
    """`endpoint` in full with `path` after it, parted by one slash; ValueError when either cannot be in a URL."""
    full, more = endpoint_of(endpoint).submit_path, path.strip("/")
    return EndpointId.parse(f"{full}/{more}").submit_path if more else full


@lru_cache(maxsize=_MAX_FORMED)
def call_path_once(endpoint: str, path: str) -> str:
    """As `call_path`, but a `path` that the endpoint ends with already is not appended again (fal-protocol §2)."""
    more = path.strip("/")
    return call_path(endpoint, "" if f"/{endpoint_of(endpoint)}".endswith(f"/{more}") else more)


async def read_object(
    transport: Exchange,
    url: str,
    *,
    headers: Mapping[str, str],
    timeout_s: float,
    max_bytes: int,
    redact: Callable[[str], str],
    question: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], str]:
    """The JSON object at `url`, and the call's name for messages. A `question` is posted; it may change nothing.

    Raises HttpError, ReplyError, TransportError.
    """
    method, body = "GET", None
    if question is not None:
        method, body = "POST", json.dumps(question).encode()
        headers = {**headers, "content-type": "application/json"}
    call = label_of(method, url)
    reply = await transport.request(method, url, headers=headers, body=body, timeout_s=timeout_s, max_bytes=max_bytes)
    if not 200 <= reply.status < 300:
        raise parse_error(reply.status, reply.headers, reply.body, call=call, redact=redact)
    try:
        document = parse_json(reply.body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        # Without a request id: the header's would be this call's own, not a job's.
        raise ReplyError(f"{call}: the reply is not the JSON it should be")
    return document, call


class Caller:
    """Who calls: the headers of all calls of a client, and what makes errors of replies."""

    __slots__ = ("_redact", "headers")

    def __init__(self, credentials: Credentials, user_agent: str, *, accept: str = "application/json, */*") -> None:
        self._redact = credentials.redact
        self.headers: Mapping[str, str] = {
            "authorization": credentials.header(),
            "user-agent": user_agent,
            "accept": accept,
        }
        """With the key: for URLs that `Hosts` gave or trusts."""

    def redact(self, text: str) -> str:
        """`text` without the key."""
        return self._redact(text)

    def error(self, reply: Reply, call: str) -> HttpError:
        """What `reply`, no success, says about `call`."""
        return parse_error(reply.status, reply.headers, reply.body, call=call, redact=self._redact)

    def raise_for_status(self, reply: Reply, call: str) -> None:
        """Raise HttpError unless `reply` is a success."""
        if not 200 <= reply.status < 300:
            raise self.error(reply, call)
