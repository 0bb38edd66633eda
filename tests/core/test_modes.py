"""A manifest's `mode`, and what it does not go together with."""

from __future__ import annotations

import pytest

from falbatch.core.identity import canonical_json, job_key
from falbatch.core.manifest import parse_manifest
from falbatch.core.model import Mode
from falbatch.errors import ManifestError

DIRECT = [Mode.RUN, Mode.STREAM, Mode.REALTIME]


def text(mode: str, more: str = "") -> bytes:
    return f"version: 1\nendpoint: fal-ai/flux/dev\nmode: {mode}\ninput: {{prompt: a}}\n{more}\n".encode()


def problems(mode: str, more: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text(mode, more), source="m.yaml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("mode", list(Mode))
def test_every_mode_is_understood(mode: Mode) -> None:
    assert parse_manifest(text(mode.value), source="m.yaml").mode is mode
    assert mode.is_direct is (mode in DIRECT)


def test_a_job_in_another_mode_is_another_job() -> None:
    keys = {job_key("fal-ai/x", mode, canonical_json({"seed": 1}), 0) for mode in Mode}
    assert len(keys) == len(Mode)


@pytest.mark.parametrize("mode", DIRECT)
def test_queue_priority_is_a_mistake_without_a_queue(mode: Mode) -> None:
    (problem,) = problems(mode.value, "request: {priority: low}")
    assert problem.startswith("m.yaml:5:11: request.priority makes no sense here")
    assert f"mode: {mode.value} has no queue" in problem


def test_a_webhook_is_a_mistake_without_a_queue() -> None:
    for mode in DIRECT:
        assert "request.webhook makes no sense here" in problems(mode.value, "request: {webhook: 'https://a.b/c'}")[0]


def test_a_realtime_connection_takes_no_options_of_one_job() -> None:
    said = problems("realtime", "request: {start_timeout_s: 5, tags: {a: b}, headers: {X-A: b}}")
    assert [problem.partition(" makes")[0].rpartition(" ")[2] for problem in said] == [
        *("request.start_timeout_s", "request.tags", "request.headers")
    ]
    assert parse_manifest(text("run", "request: {start_timeout_s: 5, tags: {a: b}}"), source="m").mode is Mode.RUN


@pytest.mark.parametrize("mode", [Mode.QUEUE, Mode.RUN, Mode.STREAM])
def test_connections_are_for_realtime(mode: Mode) -> None:
    (problem,) = problems(mode.value, "limits: {connections: 2}")
    assert "limits.connections makes no sense here" in problem
    assert "use limits.in_flight" in problem


def test_realtime_connections_are_bounded() -> None:
    assert parse_manifest(text("realtime", "limits: {connections: 64}"), source="m").limits.connections == 64
    assert "a whole number from 1 to 64" in problems("realtime", "limits: {connections: 65}")[0]


@pytest.mark.parametrize("mode", DIRECT)
def test_as_many_direct_calls_as_connections_may_be_held(mode: Mode) -> None:
    assert parse_manifest(text(mode.value, "limits: {in_flight: 256}"), source="m").limits.in_flight == 256
    (problem,) = problems(mode.value, "limits: {in_flight: 257}")
    assert f"limits.in_flight must be at most 256 with mode: {mode.value}, not 257" in problem
    assert parse_manifest(text("queue", "limits: {in_flight: 257}"), source="m").limits.in_flight == 257


@pytest.mark.parametrize("mode", DIRECT)
def test_there_is_nothing_to_poll(mode: Mode) -> None:
    assert "has nothing to poll" in problems(mode.value, "limits: {polls_per_s: 3}")[0]
