"""fal's own Python client against the sandbox: the judge of what we read out of the protocol."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import fal_client
import httpx
import pytest
from fal_client import client as fal_client_module

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.sandbox_process import SandboxProcess

KITE = {"prompt": "a red kite", "image_size": {"width": 64, "height": 64}, "seed": 2**63 + 1}


@pytest.fixture
def official(sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[fal_client.SyncClient]:
    monkeypatch.setattr(fal_client_module, "QUEUE_URL_FORMAT", f"{sandbox.origin}/queue/")
    client = fal_client.SyncClient(key="me:secret")
    yield client
    client._client.close()  # it has no close of its own


def test_submit_gives_a_handle_equal_to_the_one_rebuilt_from_its_id(official: fal_client.SyncClient) -> None:
    handle = official.submit("fal-ai/fast-sdxl/image-to-image", KITE)
    assert official.get_handle("fal-ai/fast-sdxl/image-to-image", handle.request_id) == handle


def test_events_end_in_completed_and_the_result_is_exact(official: fal_client.SyncClient) -> None:
    handle = official.submit("fal-ai/flux-pro", KITE)
    events = list(handle.iter_events(with_logs=True, interval=0.02))
    assert isinstance(events[-1], fal_client.Completed)
    assert {type(event) for event in events[:-1]} <= {fal_client.Queued, fal_client.InProgress}
    assert events[-1].logs
    assert events[-1].metrics["inference_time"] > 0
    result = handle.get()
    assert result["seed"] == 2**63 + 1
    assert official.result("fal-ai/flux-pro", handle.request_id) == result


def test_status_of_each_state_parses(official: fal_client.SyncClient) -> None:
    handles = [official.submit("fal-ai/flux-pro", KITE) for _ in range(4)]
    assert isinstance(handles[0].status(), fal_client.InProgress)
    queued = handles[3].status()
    assert isinstance(queued, fal_client.Queued)
    assert queued.position == 0
    handles[3].get()
    assert isinstance(handles[3].status(), fal_client.Completed)


def test_subscribe_reports_the_queue_and_returns_the_output(official: fal_client.SyncClient) -> None:
    seen: list[Any] = []
    output = official.subscribe(
        "fal-ai/flux/schnell", KITE, on_enqueue=seen.append, on_queue_update=seen.append, priority="low"
    )
    assert output["prompt"] == "a red kite"
    assert isinstance(seen[0], str)
    assert isinstance(seen[-1], fal_client.Completed)


def test_a_failed_request_raises_its_type_and_status(official: fal_client.SyncClient, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "submit", "do": "fail:runner_server_error"}])
    handle = official.submit("fal-ai/flux/dev", KITE)
    with pytest.raises(fal_client.client.FalClientHTTPError, match="Runner server error") as caught:
        handle.get()
    assert (caught.value.status_code, caught.value.error_type) == (500, "runner_server_error")


def test_an_invalid_input_raises_at_get(official: fal_client.SyncClient) -> None:
    handle = official.submit("fal-ai/flux/dev", {"num_images": 1})
    with pytest.raises(fal_client.client.FalClientHTTPError, match="Field required") as caught:
        handle.get()
    assert caught.value.status_code == 422


def test_cancel_works_queued_and_raises_when_done(official: fal_client.SyncClient) -> None:
    handles = [official.submit("fal-ai/flux-pro", KITE) for _ in range(4)]
    handles[3].cancel()
    assert isinstance(handles[3].status(), fal_client.Completed)
    handles[0].get()
    with pytest.raises((httpx.HTTPStatusError, fal_client.client.FalClientHTTPError)):
        handles[0].cancel()


def test_its_habit_of_posting_again_after_a_reset_is_a_double_charge(
    official: fal_client.SyncClient, sandbox: SandboxProcess
) -> None:
    sandbox.add_faults([{"on": "submit", "do": "drop_after", "nth": 1}])
    official.submit("fal-ai/flux/dev", KITE)
    assert [entry["input"] for entry in sandbox.ledger()["executions"]] == [KITE, KITE]


def test_the_async_client_subscribes_too(sandbox: SandboxProcess, official: fal_client.SyncClient) -> None:
    async def subscribe() -> Any:
        client = fal_client.AsyncClient(key="me:secret")
        output = await client.subscribe("fal-ai/flux/schnell", KITE)
        await (await client._client).aclose()
        return output

    assert asyncio.run(subscribe())["seed"] == 2**63 + 1
