"""Realtime tokens: what is asked for, and each form in which they come (fal-protocol §5.3)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from falbatch.errors import HttpError, ReplyError, UsageError
from falbatch.fal.hosts import Hosts
from falbatch.fal.tokens import TokenClient
from tests.fal.app_server import CREDENTIALS, Handler, app_server

if TYPE_CHECKING:
    from falbatch.fal.transport import Transport

pytestmark = pytest.mark.anyio


def giving(value: Any, status: int = 200) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.json_response(value, status=status)

    return handle


@pytest.mark.parametrize("value", ["t.o-k_en", {"token": "t.o-k_en"}, {"detail": "t.o-k_en"}])
@pytest.mark.parametrize(
    ("endpoint", "alias"), [("fal-ai/x/y", "x"), ("workflows/me/mine", "mine"), ("12-lora", "lora")]
)
async def test_a_token_comes_in_three_forms(transport: Transport, value: Any, endpoint: str, alias: str) -> None:
    async with app_server(giving(value)) as server:
        token = await TokenClient(transport, server.hosts, CREDENTIALS).create(endpoint, expiration_s=60)
    assert token == "t.o-k_en"
    [seen] = server.seen
    assert (seen.method, seen.path) == ("POST", "/rest/tokens/")
    assert json.loads(seen.body) == {"allowed_apps": [alias], "token_expiration": 60}
    assert seen.headers["authorization"] == CREDENTIALS.header()


@pytest.mark.parametrize("value", ["", {}, {"token": 7}, ["s3cr3t"], None, "s3cr3t with spaces", "s3cr3té"])
async def test_what_is_no_token_is_a_reply_error_that_does_not_show_it(transport: Transport, value: Any) -> None:
    async with app_server(giving(value)) as server:
        with pytest.raises(ReplyError, match="no token") as caught:
            await TokenClient(transport, server.hosts, CREDENTIALS).create("fal-ai/x")
    assert "s3cr3t" not in str(caught.value)


async def test_refusals_and_nonsense_are_told(transport: Transport) -> None:
    async with app_server(giving({"detail": "invalid key credentials"}, 401)) as server:
        tokens = TokenClient(transport, server.hosts, CREDENTIALS)
        with pytest.raises(HttpError, match="invalid key"):
            await tokens.create("fal-ai/x")
        for seconds in (0, True):
            with pytest.raises(ValueError, match="token_expiration"):
                await tokens.create("fal-ai/x", expiration_s=seconds)
        with pytest.raises(ValueError, match="endpoint id"):
            await tokens.create("x")
    assert len(server.seen) == 1
    with pytest.raises(UsageError):
        await TokenClient(transport, Hosts("https://q.example", rest=""), CREDENTIALS).create("fal-ai/x")
