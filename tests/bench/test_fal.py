"""The benchmarks' fal speaks fal's protocol, and what it counts is true."""

from __future__ import annotations

import io
import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from falbatch.core.media import HEAD_BYTES, TAIL_BYTES, defect, sniff
from tests.bench.fal_line import Line, Settings
from tests.bench.fal_process import FalProcess
from tests.bench.pictures import jpeg

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def running() -> Iterator[FalProcess]:
    with FalProcess() as fal:
        yield fal


@pytest.fixture
def fal(running: FalProcess) -> FalProcess:
    running.set(Settings())
    return running


def call(url: str, body: object = None, *, key: str = "Key a:b") -> tuple[int, Any, bytes]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers={"Authorization": key} if key else {})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as reply:
            return reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def submit(fal: FalProcess) -> dict[str, Any]:
    code, headers, body = call(f"{fal.origin}/queue/fal-ai/flux/schnell", {"prompt": "a kite", "seed": 7})
    accepted: dict[str, Any] = json.loads(body)
    assert (code, headers["x-fal-request-id"]) == (200, accepted["request_id"])
    return accepted


def test_a_job_goes_all_its_way(fal: FalProcess) -> None:
    accepted = submit(fal)
    app = f"{fal.origin}/queue/fal-ai/flux/requests/{accepted['request_id']}"
    assert [accepted[f"{what}_url"] for what in ("response", "status", "cancel")] == [
        app,
        f"{app}/status",
        f"{app}/cancel",
    ]
    code, _, body = call(accepted["status_url"])
    assert (code, json.loads(body)["status"]) == (200, "COMPLETED")
    code, headers, body = call(accepted["response_url"])
    output = json.loads(body)
    assert (code, headers["x-fal-billable-units"]) == (200, "1")
    assert (output["prompt"], output["seed"]) == ("a kite", 7)
    picture = output["images"][0]
    code, headers, body = call(picture["url"], key="")
    assert (code, headers["content-type"], len(body)) == (200, "image/jpeg", picture["file_size"])
    stats = fal.stats()
    counted = ("submits", "executed", "status_calls", "results", "files", "unknown")
    assert [stats[name] for name in counted] == [1, 1, 1, 1, 1, 0]
    assert stats["all"]["status_calls"] == 1


def test_a_running_request_says_so_until_its_time_is_over(fal: FalProcess) -> None:
    fal.set(Settings(service_s=0.3, cap=1))
    first, second = submit(fal), submit(fal)
    code, _, body = call(first["status_url"])
    assert (code, json.loads(body)["status"]) == (202, "IN_PROGRESS")
    code, _, body = call(second["status_url"])
    assert (code, json.loads(body)["status"], json.loads(body)["queue_position"]) == (202, "IN_QUEUE", 0)
    assert call(first["response_url"])[0] == 400
    code, headers, body = call(f"{second['status_url']}/stream")
    events = [json.loads(line[6:])["status"] for line in body.decode().splitlines() if line.startswith("data: ")]
    assert (code, headers["content-type"]) == (200, "text/event-stream")
    assert events == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    stats = fal.stats(first=1)
    assert (stats["early_results"], stats["executed"], stats["all"]["jobs"]) == (1, 2, 1)
    assert stats["first_wave"] == {}


@pytest.mark.parametrize(
    ("path", "key", "code"),
    [
        ("/queue/fal-ai/flux/requests/00000000-0000-4000-8000-000000000000/status", "Key a:b", 404),
        ("/queue/fal-ai/flux/requests/nonsense", "Key a:b", 404),
        ("/queue/fal-ai/flux/requests/nonsense", "", 401),
        ("/openapi/queue/openapi.json?endpoint_id=a/b", "", 404),
    ],
)
def test_what_it_does_not_know_or_may_not_tell(fal: FalProcess, path: str, key: str, code: int) -> None:
    assert call(fal.origin + path, key=key)[0] == code


def test_the_platform_has_prices_and_lists_nothing(fal: FalProcess) -> None:
    api = f"{fal.origin}/api/v1/models"
    prices = json.loads(call(f"{api}/pricing?endpoint_id=fal-ai/flux,a/b")[2])["prices"]
    assert [one["endpoint_id"] for one in prices] == ["fal-ai/flux", "a/b"]
    assert json.loads(call(f"{api}/requests/by-endpoint?endpoint_id=a/b")[2])["items"] == []


def test_no_id_comes_twice(fal: FalProcess) -> None:
    before = submit(fal)
    fal.reset()
    assert submit(fal)["request_id"] != before["request_id"]
    assert call(before["status_url"])[0] == 404


def test_under_a_cap_requests_run_in_order() -> None:
    line = Line()
    line.set({"service_s": 2.0, "cap": 2})
    requests = [line.submit("a/b", b"", 0.0) for _ in range(5)]
    assert [(one.starts, one.ends) for one in requests] == [(0, 2), (0, 2), (2, 4), (2, 4), (4, 6)]
    assert [line.ahead(one, 1.0) for one in requests] == [0, 0, 0, 1, 2]
    late = line.submit("a/b", b"", 100.0)
    assert (late.starts, late.ends) == (100, 102)


def test_a_spread_is_around_its_median_and_the_same_each_time() -> None:
    def times() -> list[float]:
        line = Line()
        line.set({"service_s": 5.0, "sigma": 0.5, "seed": 7})
        return sorted(line.submit("a/b", b"", 0.0).ends for _ in range(2001))

    assert times() == times()
    assert times()[1000] == pytest.approx(5.0, rel=0.1)
    assert times()[0] < 2.5 < 10 < times()[-1]


def test_noticing_is_told_from_the_end_on() -> None:
    line = Line()
    line.set({"service_s": 2.0})
    for delay in (0.1, 0.2, 0.6):
        request = line.submit("a/b", b"", 10.0)
        request.noticed, request.status_calls = 12.0 + delay, 3
    line.submit("a/b", b"", 10.0)
    told = line.stats(2, time.monotonic())
    assert told["all"]["jobs"] == 3
    assert told["all"]["delay_s"] == pytest.approx(0.2)
    assert told["all"]["delay_share"] == pytest.approx(0.1)
    assert told["first_wave"]["delay_s"] == pytest.approx(0.15)


@pytest.mark.parametrize("size_bytes", [2_048, 20_480, 65_000 + 20_000, 1_000_000, 20_000_000])
def test_pictures_have_their_size_and_are_real(size_bytes: int) -> None:
    body = jpeg(size_bytes)
    assert len(body) == size_bytes
    with Image.open(io.BytesIO(body)) as picture:
        picture.load()
    kind = sniff(body[:HEAD_BYTES])
    assert kind is not None
    assert kind.content_type == "image/jpeg"
    assert defect(kind, body[:HEAD_BYTES], body[-TAIL_BYTES:], len(body)) is None
