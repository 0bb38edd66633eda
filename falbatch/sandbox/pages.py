"""What the queue's routes say about a request, in fal's exact shapes (fal-protocol §3 and §8). Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox.endpoints import profile_of
from falbatch.sandbox.failures import Failure, Family, detail_item
from falbatch.sandbox.ids import digest
from falbatch.sandbox.outputs import inference_s
from falbatch.sandbox.replies import Reply, json_reply
from falbatch.sandbox.states import Status
from falbatch.sandbox.verdict import problems

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falbatch.sandbox.requests import Request

_STEPS: Final = 4
"""Log lines that a full run writes."""


def urls_of(request: Request, origin: str) -> dict[str, str]:
    """The three URLs, absolute, in the app-only form (fal-protocol §2)."""
    base = f"{origin}/queue/{request.app}/requests/{request.id}"
    return {"response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}


def submit_page(request: Request, position: int, origin: str) -> dict[str, Any]:
    """The reply to a submit; always IN_QUEUE, whatever happened since (fal-protocol §3.1)."""
    return {
        "status": Status.IN_QUEUE,
        "request_id": request.id,
        "queue_position": position,
        **urls_of(request, origin),
        "logs": None,
        "metrics": {},
    }


def status_page(
    request: Request, position: int, logs: list[dict[str, Any]] | None, origin: str, *, names_model_errors: bool
) -> dict[str, Any]:
    """The status object (fal-protocol §3.2). `logs` is None unless they were asked for."""
    page: dict[str, Any] = {
        "status": request.status,
        "request_id": request.id,
        **urls_of(request, origin),
        "logs": logs,
        "metrics": {},
    }
    if request.status is Status.IN_QUEUE:
        page["queue_position"] = position
    elif request.status is Status.COMPLETED:
        if request.verdict.status == 200:
            page["metrics"] = {"inference_time": inference_s(request)}
        else:
            page |= _error_fields(request, names_model_errors)
    return page


def logs_of(request: Request, now: float) -> list[dict[str, Any]]:
    """The log so far: a line per quarter of the run (fal-protocol §3.2)."""
    if request.started_at is None:
        return []
    until = now if request.ended_at is None else request.ended_at
    length = (request.finishes_at or until) - request.started_at
    lines = []
    for step in range(1, _STEPS + 1):
        at = request.started_at + length * step / _STEPS
        if at <= until + 1e-6:
            lines.append(_log_line(at, f"step {step}/{_STEPS}"))
    return lines


def failure_reply(request: Request) -> Reply:
    """The result call's answer for a request that did not succeed."""
    failure = request.verdict.kind
    headers = result_headers(request)
    if failure is not None and failure.family is Family.REQUEST:
        headers["X-Fal-Error-Type"] = failure.type
        if failure.by_caller:
            headers["X-Fal-Request-Timeout-Type"] = "user"
        return json_reply(failure.status, {"detail": failure.message, "error_type": failure.type}, headers)
    details = _model_details(request, failure)
    can_retry = failure is not None and failure.retryable
    headers["X-Fal-Error-Type"] = str(details[0]["type"])
    headers["X-Fal-Retryable"] = str(can_retry).lower()
    headers["X-Fal-Needs-Retry"] = str(int(can_retry))
    return json_reply(request.verdict.status, {"detail": details}, headers)


def result_headers(request: Request) -> dict[str, str]:
    """Headers of every result (fal-protocol §8.5). The runner is named only when one ran it."""
    headers = {"x-fal-request-id": request.id, "X-Fal-Billable-Units": f"{request.verdict.units:g}"}
    if request.attempt:
        headers["X-Fal-Served-From"] = digest("runner", request.id, request.attempt, size=8).hex()
    return headers


def _error_fields(request: Request, names_model_errors: bool) -> dict[str, Any]:
    failure = request.verdict.kind
    if failure is not None and failure.family is Family.REQUEST:
        return {"error": failure.message, "error_type": failure.type}
    return {"error": f"Invalid status code: {request.verdict.status}"} if names_model_errors else {}


def _model_details(request: Request, failure: Failure | None) -> list[dict[str, Any]]:
    payload: Mapping[str, Any] = request.payload
    if failure is None:
        return problems(profile_of(request.endpoint), payload)
    loc = ("prompt",) if "prompt" in payload else ()
    echo = {"input": payload["prompt"]} if loc else {}
    return [detail_item(failure.type, failure.message, loc, failure.ctx, **echo)]


def _log_line(at: float, message: str) -> dict[str, Any]:
    timestamp = datetime.fromtimestamp(at, UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return {"timestamp": timestamp, "message": message, "level": "INFO", "source": "USER", "labels": {}}
