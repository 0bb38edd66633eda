"""Models and schemas, read from the sandbox and from servers that say odd things."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from falbatch.errors import HttpError, ReplyError, UsageError
from falbatch.fal.auth import Credentials
from falbatch.fal.catalogue import CatalogueClient
from falbatch.fal.exchange import Reply
from falbatch.fal.hosts import Hosts
from falbatch.fal.transport import Transport
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

KEY = Credentials("Key", "me:secret", source="a test")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess() as process:
        yield process


def asked(sandbox: SandboxProcess, call: Callable[[CatalogueClient], Awaitable[Any]], key: Credentials | None) -> Any:
    async def main() -> Any:
        async with Transport() as transport:
            return await call(CatalogueClient(transport, Hosts.resolve({}, origin=sandbox.origin), key))

    return anyio.run(main)


@pytest.mark.parametrize("key", [KEY, None])
def test_pages_give_every_model_once(sandbox: SandboxProcess, key: Credentials | None) -> None:
    async def all_of_them(catalogue: CatalogueClient) -> list[str]:
        found: list[str] = []
        cursor: str | None = None
        while True:
            page = await catalogue.models(limit=3, cursor=cursor)
            found += [model.endpoint for model in page.models]
            if (cursor := page.next_cursor) is None:
                return found

    found = asked(sandbox, all_of_them, key)
    assert len(found) == len(set(found)) > 12
    assert "fal-ai/flux/dev" in found


def test_models_are_chosen(sandbox: SandboxProcess) -> None:
    page = asked(sandbox, lambda catalogue: catalogue.models("flux", status="active"), KEY)
    assert all(model.status == "active" and model.name for model in page.models)
    named = asked(
        sandbox, lambda catalogue: catalogue.models(endpoints=["fal-ai/flux/dev", "fal-ai/flux/schnell"]), KEY
    )
    assert {model.endpoint for model in named.models} == {"fal-ai/flux/dev", "fal-ai/flux/schnell"}


def test_a_schema_needs_no_key_and_knows_what_it_does_not_know(sandbox: SandboxProcess) -> None:
    document = asked(sandbox, lambda catalogue: catalogue.schema("fal-ai/flux/dev"), None)
    assert "/fal-ai/flux/dev" in document["paths"]
    with pytest.raises(HttpError) as caught:
        asked(sandbox, lambda catalogue: catalogue.schema("fal-ai/no-such-thing"), None)
    assert caught.value.status == 404


class Says:
    """A transport that answers everything alike, and remembers what it was asked."""

    def __init__(self, body: object, status: int = 200) -> None:
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status = status
        self.headers: list[Mapping[str, str]] = []

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
        max_bytes: int,
    ) -> Reply:
        self.headers.append(headers)
        return Reply(self.status, {}, self.body)


@pytest.mark.parametrize("body", [b"<html>", [], {"models": {}}, {}, b"null"])
def test_a_list_that_is_none_is_a_reply_error(body: object) -> None:
    client = CatalogueClient(Says(body), Hosts("https://queue.fal.run"), KEY)
    with pytest.raises(ReplyError):
        anyio.run(client.models)


def test_entries_that_make_no_sense_are_left_out() -> None:
    entries = [7, {}, {"endpoint_id": ""}, {"endpoint_id": "a/b", "metadata": [1]}, {"endpoint_id": "c/d\x1b[2J\n"}]
    says = Says({"models": entries, "next_cursor": "x", "has_more": False})
    page = anyio.run(CatalogueClient(says, Hosts("https://queue.fal.run"), KEY).models)
    assert [(model.endpoint, model.name, model.tags) for model in page.models] == [("a/b", "", ()), ("c/d [2J", "", ())]
    assert page.next_cursor is None


def test_the_key_goes_to_the_list_and_never_to_the_schemas() -> None:
    says = Says({"models": [], "paths": {}})
    client = CatalogueClient(says, Hosts("https://queue.fal.run"), KEY)
    anyio.run(client.models)
    anyio.run(client.schema, "fal-ai/flux/dev")
    assert ["authorization" in headers for headers in says.headers] == [True, False]


@pytest.mark.parametrize("depth", [300, 990, 1010, 100_000])
def test_a_schema_that_is_nested_absurdly_deep_is_no_reply(depth: int) -> None:
    deep = b'{"paths":{},"x":' + b"[" * depth + b"]" * depth + b"}"
    client = CatalogueClient(Says(deep), Hosts("https://queue.fal.run"), KEY)
    with pytest.raises(ReplyError):
        anyio.run(client.schema, "fal-ai/flux/dev")


def test_endpoints_like_one_are_none_where_no_list_is_known() -> None:
    client = CatalogueClient(Says({}), Hosts("https://mine.example/queue", api="", openapi=""), KEY)
    assert anyio.run(client.near, "fal-ai/flux/devv") == []


def test_without_a_known_address_nothing_is_asked() -> None:
    client = CatalogueClient(Says({}), Hosts("https://mine.example/queue", api="", openapi=""), KEY)
    with pytest.raises(UsageError) as caught:
        anyio.run(client.models)
    assert "FALBATCH_API_URL" in caught.value.advice
    with pytest.raises(UsageError) as caught:
        anyio.run(client.schema, "fal-ai/flux/dev")
    assert "FALBATCH_OPENAPI_URL" in caught.value.advice
