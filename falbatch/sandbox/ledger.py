"""The billing ledger: what fal would have run, and charged. The judge of "never pay twice". Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from falbatch.sandbox.states import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from falbatch.sandbox.requests import Request


def ledger_page(requests: Iterable[Request]) -> dict[str, Any]:
    """`GET /sandbox/ledger` (design §9): one entry per execution, in the order of submission.

    An entry appears when the execution starts; `status_code` and `ended_at` are null and the cost is 0 until it
    ends. An attempt that was lost and requeued is not an execution of its own: it is free, and its request
    is listed again once it starts anew. What was cancelled or expired while queued never ran and has no entry.
    """
    executions = [_entry(request) for request in requests if request.started_at is not None]
    total = round(sum(entry["cost"] for entry in executions), 6)
    return {"count": len(executions), "total_cost": total, "executions": executions}


def _entry(request: Request) -> dict[str, Any]:
    has_ended = request.status is Status.COMPLETED
    return {
        "request_id": request.id,
        "endpoint": request.endpoint,
        "input": request.payload,
        "submitted_at": request.submitted_at,
        "started_at": request.started_at,
        "ended_at": request.ended_at,
        "status_code": request.verdict.status if has_ended else None,
        "billable_units": request.verdict.units if has_ended else 0.0,
        "cost": request.verdict.cost if has_ended else 0.0,
    }
