"""Uploads of inputs: bytes or a file in, a URL out (fal-protocol §6).

    ≤ 90 MiB   token ─▶ POST cdn/files/upload ─▶ url
    above      token ─▶ create ─▶ PUT part 1 … n, several at a time ─▶ complete, sorted ─▶ url
    "fal"      key ─▶ initiate (rest) ─▶ PUT to a signed URL, without any key or token ─▶ url

Nothing here costs money, so failures that may pass are met with another try (§13.1); a second copy at worst.
A redirect is an error: it would take bytes and token where nobody sent them.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar
from urllib.parse import quote

import anyio

from falbatch.errors import HttpError, ReplyError, TransportError, WireError
from falbatch.fal.again import Repeats, may_read_again, repeat
from falbatch.fal.cdn import MAX_ANSWER_BYTES, CdnTokens, belongs_to_cdn, json_object
from falbatch.fal.data_uri import guess_content_type
from falbatch.fal.exchange import label_of
from falbatch.fal.lifecycle import upload_headers
from falbatch.fal.parts import BytesSource, FileSource, Memory, PartsPlace, cdn_place, signed_place, spans
from falbatch.fal.problems import parse_error

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from falbatch.fal.auth import Credentials
    from falbatch.fal.cdn import CdnToken
    from falbatch.fal.exchange import Reply
    from falbatch.fal.hosts import Hosts
    from falbatch.fal.lifecycle import StorageSettings
    from falbatch.fal.parts import Source
    from falbatch.fal.queue import Exchange

T = TypeVar("T")

MIB: Final = 1024 * 1024

Repository = Literal["fal_v3", "fal"]
"""`fal_v3`: the CDN, directly. `fal`: by way of a signed URL."""

UNNAMED: Final = "upload.bin"
"""For the calls that must name the file; the official client's word."""

MAX_NAME: Final = 255
"""Bytes of a file name: no file system takes more."""

_PLAIN_NAME: Final = re.compile(r"[ -~]+")
_CONTENT_TYPE: Final = re.compile(r"[!#-'*+.^_`|~0-9A-Za-z-]+/[ -~]*[!-~]")
_FILE_URL: Final = re.compile(r"https?://[!$-;=?-Z_a-z~%@\[\]]+")


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A file at fal."""

    url: str
    expires_at: float | None
    """Unix seconds, by our clock and from before the upload began; None when the account's setting decides."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """How uploads are cut and paced."""

    whole_bytes: int = 90 * MIB
    """Files up to this size go in one request (as in fal's JS client; the Python one says 100)."""
    part_bytes: int = 10 * MIB
    parts_at_once: int = 4
    """For all uploads of a client together: a home line is full with fewer, and a part in memory costs 10 MiB."""
    memory_bytes: int = 100 * MIB
    """Read from files and not yet sent, at most, over all uploads."""
    grace_s: float = 60.0
    """Given to each request beside the time that its bytes need."""
    slowest_bytes_s: float = 50_000.0
    """A line slower than this, in bytes a second, counts as dead."""

    def timeout_s(self, size: int) -> float:
        """Seconds for a request with `size` bytes in it."""
        return self.grace_s + size / self.slowest_bytes_s


class StorageClient:
    """Uploads through `transport`. Safe to share between tasks of one event loop.

    Failures: WireError as elsewhere (of a part, with its number), OSError of a local file, ValueError for a content
    type or lifecycle that is none, UsageError where no storage is known for this fal.
    """

    def __init__(
        self,
        transport: Exchange,
        hosts: Hosts,
        credentials: Credentials,
        *,
        user_agent: str = "falbatch",
        limits: UploadLimits | None = None,
        repeats: Repeats | None = None,
    ) -> None:
        self._transport = transport
        self._hosts = hosts
        self._credentials = credentials
        self._user_agent = user_agent
        self._limits = limits or UploadLimits()
        self._repeats = repeats or Repeats()
        self._tokens = CdnTokens(transport, hosts, credentials, user_agent=user_agent)
        self._memory = Memory(self._limits.memory_bytes)
        self._parts_free = anyio.Semaphore(self._limits.parts_at_once)

    async def upload(
        self,
        data: bytes,
        content_type: str,
        file_name: str | None = None,
        lifecycle: StorageSettings | None = None,
        *,
        repository: Repository = "fal_v3",
        fallback: Sequence[Repository] = (),
    ) -> Uploaded:
        """Upload `data`. The repositories of `fallback` are tried in turn, when the one before could not be used."""
        name = header_name(file_name) if file_name else None
        return await self._store(BytesSource(bytes(data)), content_type, name, lifecycle, (repository, *fallback))

    async def upload_path(
        self,
        path: str | os.PathLike[str],
        content_type: str | None = None,
        file_name: str | None = None,
        lifecycle: StorageSettings | None = None,
        *,
        repository: Repository = "fal_v3",
        fallback: Sequence[Repository] = (),
    ) -> Uploaded:
        """Upload a file, with the type and the name that its path tells unless given. Read part by part."""
        name = header_name(file_name or PurePath(path).name)
        kind = content_type or guess_content_type(path)
        source = await anyio.to_thread.run_sync(FileSource, path)
        with source:
            return await self._store(source, kind, name, lifecycle, (repository, *fallback))

    async def _store(
        self,
        source: Source,
        content_type: str,
        name: str | None,
        lifecycle: StorageSettings | None,
        repositories: Sequence[Repository],
    ) -> Uploaded:
        if not _CONTENT_TYPE.fullmatch(content_type):
            raise ValueError(f"{content_type!r} is not a content type; one looks like image/png")
        file = _File(source, content_type, name, upload_headers(lifecycle))
        life_s = lifecycle.lifetime_s() if lifecycle else None
        for place, repository in enumerate(repositories):
            began = time.time()
            try:
                url = await self._to(repository, file)
                return Uploaded(url, None if life_s is None else began + life_s)
            except WireError as error:
                if place == len(repositories) - 1 or not is_worth_another_repository(error):
                    raise
        raise ValueError("an upload needs a repository")

    async def _to(self, repository: Repository, file: _File) -> str:
        whole = file.source.size <= self._limits.whole_bytes
        match repository:
            case "fal_v3":
                return await (self._post_whole(file) if whole else self._send_parts(file, await self._create(file)))
            case "fal":
                return await (self._put_whole(file) if whole else self._send_parts(file, await self._initiate(file)))
            case _:
                raise ValueError(f"{repository!r} is no repository for uploads; give fal_v3 or fal")

    # in one request

    async def _post_whole(self, file: _File) -> str:
        url = f"{self._hosts.need('cdn')}/files/upload"
        headers = {**file.headers, **file.lifecycle, "accept": "application/json"}
        reply = await self._send_whole(file, "POST", url, headers, with_token=True)
        call = label_of("POST", url)
        return _url_in(json_object(reply, call), "access_url", call)

    async def _put_whole(self, file: _File) -> str:
        file_url, upload_url = await self._ask_for_place(file, "initiate?storage_type=gcs")
        await self._send_whole(file, "PUT", upload_url, {"content-type": file.content_type}, with_token=False)
        return file_url

    async def _send_whole(
        self, file: _File, method: str, url: str, headers: Mapping[str, str], *, with_token: bool
    ) -> Reply:
        share = await self._memory.take(0 if file.source.in_memory else file.source.size)
        try:
            body = await file.source.read(0, file.source.size)
            return await self._repeated(lambda: self._call(method, url, headers, body, with_token=with_token))
        finally:
            self._memory.give_back(share)

    # in parts

    async def _create(self, file: _File) -> PartsPlace:
        async def create() -> PartsPlace:
            token = await self._tokens.current()
            url = f"{token.base}/files/upload/multipart"
            headers = {**file.headers, "x-fal-file-name": file.name or UNNAMED, **file.lifecycle}
            reply = await self._call("POST", url, {**headers, "accept": "application/json"}, None, with_token=True)
            call = label_of("POST", url)
            document = json_object(reply, call)
            access_url, upload_id = _url_in(document, "access_url", call), document.get("uploadId")
            if not isinstance(upload_id, str) or not upload_id:
                raise ReplyError(f"{call}: the reply names no upload id")
            if not belongs_to_cdn(access_url, token.base):
                raise ReplyError(f"{call}: the file's address is not at the CDN, where alone its token may go")
            return cdn_place(access_url, upload_id)

        return await self._repeated(create)

    async def _initiate(self, file: _File) -> PartsPlace:
        return signed_place(*await self._ask_for_place(file, "initiate-multipart?storage_type=fal-cdn-v3"))

    async def _ask_for_place(self, file: _File, what: str) -> tuple[str, str]:
        """The file's address and the signed URL for its bytes."""
        rest = self._hosts.need("rest")
        url = f"{rest}/storage/upload/{what}"
        wanted = {"file_name": file.name or UNNAMED, "content_type": file.content_type}
        headers = {
            "authorization": self._credentials.header(),
            "accept": "application/json",
            "content-type": "application/json",
            **file.lifecycle,
        }

        async def ask() -> tuple[str, str]:
            reply = await self._call("POST", url, headers, json.dumps(wanted).encode(), with_token=False)
            call = label_of("POST", url)
            document = json_object(reply, call)
            upload_url = _url_in(document, "upload_url", call)
            if not upload_url.startswith("https://") and not rest.startswith("http://"):
                raise ReplyError(f"{call}: the reply wants the file sent over plain http")
            return _url_in(document, "file_url", call), upload_url

        return await self._repeated(ask)

    async def _send_parts(self, file: _File, place: PartsPlace) -> str:
        """Send all parts, then say so. The first part that fails for good ends the others, and is what is raised."""
        cuts = spans(file.source.size, self._limits.part_bytes)
        waiting = iter(enumerate(cuts, 1))
        etags: dict[int, str] = {}
        failures: list[Exception] = []

        async def work(group: anyio.abc.TaskGroup) -> None:
            for number, (offset, length) in waiting:
                try:
                    etags[number] = await self._send_part(file, place, number, offset, length)
                except (WireError, OSError) as error:
                    if isinstance(error, WireError):
                        error.args = (f"part {number} of {len(cuts)}: {error}", *error.args[1:])
                    failures.append(error)
                    group.cancel_scope.cancel()
                    return

        async with anyio.create_task_group() as group:
            for _ in range(min(self._limits.parts_at_once, len(cuts))):
                group.start_soon(work, group)
        if failures:
            raise failures[0]
        receipt = {"parts": [{"partNumber": number, "etag": etags[number]} for number in sorted(etags)]}
        body, headers = json.dumps(receipt).encode(), {"content-type": "application/json"}
        url = place.at("complete")
        await self._repeated(lambda: self._call("POST", url, headers, body, with_token=place.with_token))
        return place.url

    async def _send_part(self, file: _File, place: PartsPlace, number: int, offset: int, length: int) -> str:
        url = place.at(str(number))
        # A compressed reply loses its etag (§6.2).
        headers = {"content-type": file.content_type, "accept-encoding": "identity"}
        async with self._parts_free:
            share = await self._memory.take(length)
            try:
                body = await file.source.read(offset, length)

                async def put() -> str:
                    reply = await self._call("PUT", url, headers, body, with_token=place.with_token)
                    return place.etag_of(reply, label_of("PUT", url))

                return await self._repeated(put)
            finally:
                self._memory.give_back(share)

    # one exchange

    async def _repeated(self, call: Callable[[], Awaitable[T]]) -> T:
        return await repeat(call, self._repeats, if_=may_read_again)

    async def _call(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, *, with_token: bool
    ) -> Reply:
        """One exchange that succeeds; `with_token` shows the CDN's token, and a new one when that is refused."""
        sent = {"user-agent": self._user_agent, **headers}
        if not with_token:
            return self._checked(await self._exchange(method, url, sent, body), method, url, None)
        token = await self._tokens.current()
        reply = await self._exchange(method, url, {**sent, "authorization": token.authorization}, body)
        if reply.status == 401:  # ended early, or our clock is wrong
            self._tokens.drop(token)
            token = await self._tokens.current()
            reply = await self._exchange(method, url, {**sent, "authorization": token.authorization}, body)
        return self._checked(reply, method, url, token)

    async def _exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        timeout_s = self._limits.timeout_s(len(body or b""))
        return await self._transport.request(
            method, url, headers=headers, body=body, timeout_s=timeout_s, max_bytes=MAX_ANSWER_BYTES
        )

    def _checked(self, reply: Reply, method: str, url: str, token: CdnToken | None) -> Reply:
        if 200 <= reply.status < 300:
            return reply

        def redact(text: str) -> str:
            text = self._credentials.redact(text)
            return token.redact(text) if token else text

        raise parse_error(reply.status, reply.headers, reply.body, call=label_of(method, url), redact=redact)


@dataclass(frozen=True, slots=True)
class _File:
    """What is uploaded, and what is said of it."""

    source: Source
    content_type: str
    name: str | None
    """Fit for a header."""
    lifecycle: Mapping[str, str]

    @property
    def headers(self) -> dict[str, str]:
        """Content type and name."""
        named = {"x-fal-file-name": self.name} if self.name else {}
        return {"content-type": self.content_type, **named}


def header_name(file_name: str) -> str:
    """The last part of `file_name` as a header can carry it: percent-encoded where it is more than plain ASCII."""
    name = PurePath(file_name.replace("\\", "/")).name.strip()
    if not name.strip("."):
        return UNNAMED
    if _PLAIN_NAME.fullmatch(name) and len(name) <= MAX_NAME:
        return name
    stem, dot, ending = name.rpartition(".")
    if not dot or len(ending) > 20:
        stem, ending = name, ""
    ending = quote(dot + ending if ending else "", safe=" ")
    kept, room = "", MAX_NAME - len(ending)
    for part in (quote(character, safe=" ", errors="replace") for character in stem):  # whole characters only
        if len(kept) + len(part) > room:
            break
        kept += part
    return kept.strip() + ending


def is_worth_another_repository(error: WireError) -> bool:
    """May the same bytes fare better elsewhere? Not when the key or the file was refused."""
    if isinstance(error, HttpError):
        return error.status >= 500 or error.status in {404, 405, 408, 409, 410, 429}
    return isinstance(error, TransportError | ReplyError)


def _url_in(document: Mapping[str, Any], name: str, call: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not _FILE_URL.fullmatch(value):
        raise ReplyError(f"{call}: the reply names no {name}")
    return value
