"""WebSockets: messages both ways, each one an execution, and every way in which a connection ends (§5.3)."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

import aiohttp
import ormsgpack
import pytest
from PIL import Image

from falbatch.sandbox.realtime import json_of
from tests.sandbox.direct import KITE, QUICK, SLOW, VERY_SLOW, WAIT_S, run, running, session, until
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

Socket = aiohttp.ClientWebSocketResponse


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """One at a time, apps that stop, and no patience."""
    scenario = tmp_path_factory.mktemp("strict") / "scenario.yaml"
    scenario.write_text("concurrency: 1\nspeed: 25\ncancel_running: stop\nrealtime_idle_s: 0.2\n")
    with SandboxProcess("--scenario", str(scenario)) as process:
        yield process
        process.stop()
        assert process.errors == ""


@asynccontextmanager
async def connected(
    sandbox: SandboxProcess, endpoint: str = QUICK, query: str = "", headers: dict[str, str] | None = None
) -> AsyncIterator[Socket]:
    url = f"{sandbox.origin}/run/{endpoint}/realtime{query}"
    async with session(headers) as client, client.ws_connect(url, max_msg_size=0) as connection:
        yield connection


async def token(sandbox: SandboxProcess, **wish: Any) -> str:
    async with session() as client:
        answer = await run(client, f"{sandbox.origin}/rest/tokens/", {"allowed_apps": ["flux"], **wish})
    return str(answer.json())


async def ask(connection: Socket, payload: object) -> dict[str, Any]:
    """The answer to one msgpack message."""
    await connection.send_bytes(ormsgpack.packb(payload))
    return await answered(connection)


async def answered(connection: Socket) -> dict[str, Any]:
    """The next answer, which metadata follows."""
    output: dict[str, Any] = ormsgpack.unpackb(await connection.receive_bytes(timeout=WAIT_S))
    metadata = await connection.receive_json(timeout=WAIT_S)
    assert (metadata["type"], metadata["action"]) == ("x-fal-message", "timings")
    return output


async def ending(connection: Socket) -> tuple[Any, int | None, str | None]:
    """The error that ends a connection, and the code and reason of its close."""
    error = await connection.receive_json(timeout=WAIT_S)
    close = await connection.receive(timeout=WAIT_S)
    assert close.type is aiohttp.WSMsgType.CLOSE
    return error, close.data, close.extra


async def test_each_binary_message_is_an_execution_whose_picture_comes_as_bytes(sandbox: SandboxProcess) -> None:
    async with connected(sandbox) as connection:
        outputs = [await ask(connection, {**KITE, "seed": seed}) for seed in (1, 2**63)]
    image = outputs[0]["images"][0]
    with Image.open(BytesIO(image["content"])) as picture:
        assert (picture.format, picture.size) == ("JPEG", (image["width"], image["height"]))
    assert [output["seed"] for output in outputs] == [1, 2**63]
    entries = sandbox.ledger()["executions"]
    assert [entry["request_id"] for entry in entries] == [output["request_id"] for output in outputs]
    assert [entry["cost"] for entry in entries] == [0.003] * 2
    assert "sync_mode" not in entries[0]["input"]
    assert sandbox.request(outputs[0]["request_id"])["via"] == "realtime"


async def test_json_is_answered_with_json(sandbox: SandboxProcess) -> None:
    async with connected(sandbox) as connection:
        await connection.send_json({**KITE, "seed": 10**25, "request_id": "mine"})
        output = await connection.receive_json(timeout=WAIT_S)
    assert (output["seed"], output["request_id"]) == (10**25, "mine")
    assert output["images"][0]["url"].startswith("data:image/jpeg;base64,")


async def test_a_text_endpoint_answers_with_its_text(sandbox: SandboxProcess) -> None:
    async with connected(sandbox, "fal-ai/any-llm") as connection:
        output = await ask(connection, {"prompt": "why is the sky blue", "model": "x"})
    assert "why is the sky blue" in output["output"]


async def test_a_socket_on_any_path_of_an_app_speaks_the_same(sandbox: SandboxProcess) -> None:
    async with session() as client, client.ws_connect(f"{sandbox.origin}/run/{QUICK}/ws") as connection:
        assert (await ask(connection, KITE))["images"]
    assert sandbox.ledger()["executions"][0]["endpoint"] == f"{QUICK}/ws"


def test_bytes_of_an_input_are_recorded_as_a_data_uri() -> None:
    assert json_of(ormsgpack.packb({"image": b"\x00\xff"})) == b'{"image":"data:application/octet-stream;base64,AP8="}'


async def test_a_token_opens_a_socket_of_its_app(sandbox: SandboxProcess) -> None:
    async with connected(sandbox, query=f"?fal_jwt_token={await token(sandbox)}", headers={}) as connection:
        assert (await ask(connection, KITE))["images"]
    assert sandbox.ledger()["executions"][0]["input"]["prompt"] == "a red kite"


async def test_a_bad_token_is_told_after_the_handshake(sandbox: SandboxProcess) -> None:
    other, stale = await token(sandbox, allowed_apps=["other"]), await token(sandbox, token_expiration=0.001)
    for bad in (other, stale, "nonsense"):
        async with connected(sandbox, query=f"?fal_jwt_token={bad}", headers={}) as connection:
            assert await ending(connection) == ({"status": "error", "error": "Unauthorized"}, 1008, "Unauthorized")


@pytest.mark.parametrize(
    ("endpoint", "query", "headers", "code"),
    [
        (QUICK, "", {}, 401),
        (QUICK, "", {"Authorization": "Key nonsense"}, 401),
        ("fal-ai/does-not-exist", "", None, 404),
        (QUICK, "?max_buffering=0", None, 422),
        (QUICK, "?max_buffering=61", None, 422),
        (QUICK, "?max_buffering=x", None, 422),
    ],
)
async def test_a_handshake_is_refused_with_a_plain_reply(
    sandbox: SandboxProcess, endpoint: str, query: str, headers: dict[str, str] | None, code: int
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with connected(sandbox, endpoint, query, headers):
            pass
    assert caught.value.status == code


async def test_beyond_the_limit_handshakes_are_refused_and_messages_answered_with_an_error(
    sandbox: SandboxProcess,
) -> None:
    async with session() as client, connected(sandbox) as early:
        busy = [asyncio.create_task(run(client, f"{sandbox.origin}/run/{SLOW}", KITE)) for _ in range(3)]
        await until(lambda: running(sandbox) == 3)
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with connected(sandbox):
                pass
        assert caught.value.status == 429
        await early.send_bytes(ormsgpack.packb(KITE))
        error = await early.receive_json(timeout=WAIT_S)
        assert (error["type"], error["error"]) == ("x-fal-error", "concurrent_requests_limit")
        await asyncio.gather(*busy)
        assert (await ask(early, KITE))["images"], "the connection lives on"
    assert sandbox.ledger()["count"] == 4


@pytest.mark.parametrize("message", [{"prompt": 5}, [1], b"\xc1"])
async def test_what_cannot_be_answered_ends_the_connection_after_its_error(
    sandbox: SandboxProcess, message: object
) -> None:
    async with connected(sandbox) as connection:
        await connection.send_bytes(message if isinstance(message, bytes) else ormsgpack.packb(message))
        error, code, _ = await ending(connection)
    assert (error["type"], code) == ("x-fal-error", 1000)
    assert error["reason"]
    assert sandbox.ledger()["total_cost"] == 0


async def test_silence_ends_with_a_timeout(strict: SandboxProcess) -> None:
    async with connected(strict) as connection:
        assert (await ask(connection, KITE))["images"]
        error, code, reason = await ending(connection)
    assert (error["type"], error["error"], code, reason) == ("x-fal-error", "TIMEOUT", 1000, "TIMEOUT")


@pytest.mark.parametrize("is_polite", [True, False])
async def test_whoever_leaves_in_the_middle_stops_what_runs(strict: SandboxProcess, is_polite: bool) -> None:
    strict.reset()
    async with session() as client:
        connection = await client.ws_connect(f"{strict.origin}/run/{VERY_SLOW}/realtime")
        await connection.send_bytes(ormsgpack.packb(KITE))
        await until(lambda: running(strict) == 1)
        if is_polite:
            await connection.close()
    await until(lambda: running(strict) == 0)
    assert strict.ledger()["executions"][0]["status_code"] == 499


async def test_messages_wait_their_turn_and_old_ones_give_way_where_that_was_asked_for(sandbox: SandboxProcess) -> None:
    for query, expected in (("", [0, 1, 2, 3, 4, 5]), ("?max_buffering=2", [0, 4, 5])):
        async with connected(sandbox, SLOW, query) as connection:
            for seed in range(6):
                await connection.send_bytes(ormsgpack.packb({**KITE, "seed": seed}))
                if seed == 0:
                    await until(lambda: running(sandbox) == 1)
            assert [(await answered(connection))["seed"] for _ in expected] == expected
    assert sandbox.ledger()["count"] == 9


async def test_an_execution_may_fail(sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "realtime", "do": "fail:runner_disconnected", "nth": 2}])
    async with connected(sandbox) as connection:
        await ask(connection, KITE)
        await connection.send_bytes(ormsgpack.packb(KITE))
        error, _, _ = await ending(connection)
    assert error["error"] == "runner_disconnected"


@pytest.mark.parametrize(
    ("rule", "code"),
    [({"do": "status:503"}, 503), ({"do": "status:429", "retry_after": 1}, 429), ({"do": "lock"}, 403)],
)
async def test_a_fault_may_refuse_the_handshake(sandbox: SandboxProcess, rule: dict[str, Any], code: int) -> None:
    sandbox.add_faults([{"on": "realtime", **rule}])
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with connected(sandbox):
            pass
    assert caught.value.status == code


async def test_a_fault_may_cut_the_handshake_or_the_first_answer(sandbox: SandboxProcess) -> None:
    # Both times: aiohttp's client tries a lost GET once more by itself.
    sandbox.add_faults([{"on": "realtime", "do": "drop_before", "times": 2}, {"on": "realtime", "do": "drop_after"}])
    with pytest.raises(aiohttp.ClientError):
        async with connected(sandbox):
            pass
    assert sandbox.ledger()["count"] == 0
    async with connected(sandbox) as connection:
        await connection.send_bytes(ormsgpack.packb(KITE))
        assert (await connection.receive(timeout=WAIT_S)).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
    assert sandbox.ledger()["count"] == 1


@pytest.mark.parametrize("do", ["truncate", "corrupt", "wrong_type", "hang", "delay:0.05"])
async def test_a_fault_may_spoil_every_answer_on_a_connection(sandbox: SandboxProcess, do: str) -> None:
    sandbox.add_faults([{"on": "realtime", "do": do}])
    async with connected(sandbox) as connection:
        await connection.send_bytes(ormsgpack.packb(KITE))
        match do:
            case "hang":
                await until(lambda: sandbox.ledger()["count"] == 1)
                with pytest.raises(TimeoutError):
                    await connection.receive(timeout=0.2)
            case "wrong_type":
                assert "<!doctype html>" in await connection.receive_str(timeout=WAIT_S)
            case "delay:0.05":
                assert (await answered(connection))["images"]
            case _:
                with pytest.raises(ormsgpack.MsgpackDecodeError):
                    ormsgpack.unpackb(await connection.receive_bytes(timeout=WAIT_S))
                with pytest.raises(ValueError, match=r"line|Expecting|Extra"):
                    json.loads(await connection.receive_str(timeout=WAIT_S))


async def test_open_sockets_do_not_keep_the_sandbox_from_stopping(tmp_path: Path) -> None:
    with SandboxProcess("--data", str(tmp_path)) as sandbox:
        async with connected(sandbox) as connection:
            await ask(connection, KITE)
            assert await asyncio.to_thread(sandbox.stop) == 0
            assert (await connection.receive(timeout=WAIT_S)).type is not aiohttp.WSMsgType.BINARY
        assert sandbox.errors == ""


async def test_http_over_a_websocket_answers_call_after_call(sandbox: SandboxProcess) -> None:
    async with session() as client, client.ws_connect(f"{sandbox.origin}/ws/{QUICK}") as connection:
        for payload, status in ((KITE, 200), ({"prompt": 5}, 422), (KITE, 200)):
            await connection.send_json(payload)
            start = await connection.receive_json(timeout=WAIT_S)
            body = await connection.receive_json(timeout=WAIT_S)
            end = await connection.receive_json(timeout=WAIT_S)
            assert (start["type"], start["status"], end["type"], end["status"]) == ("start", status, "end", status)
            assert start["request_id"] == end["request_id"] == start["headers"]["x-fal-request-id"]
            assert ("images" in body) is (status == 200)
            assert end["time_to_first_byte_seconds"] > 0
    assert sandbox.ledger()["count"] == 3


@pytest.mark.parametrize(("endpoint", "key", "code"), [(QUICK, {}, 401), ("one", None, 404), (QUICK, None, 426)])
async def test_a_plain_call_of_the_websocket_host_is_refused(
    sandbox: SandboxProcess, endpoint: str, key: dict[str, str] | None, code: int
) -> None:
    async with session(key) as client:
        assert (await run(client, f"{sandbox.origin}/ws/{endpoint}", KITE)).status == code
