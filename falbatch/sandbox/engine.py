"""The queue: what time does to requests. Knows no clock and no socket; `now` comes in with every call.

    submit ─▶ line of the account ─▶ running, at most `concurrency` ─▶ completed
                  ▲                    ▲   │
                  └──── pause ◀── requeue ─┘
    a direct call, where there is room ┘

Time is caught up with in `advance`, event by event at the moment each was due, so the outcome does not depend on
how often anybody looks. All Unix seconds.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING, Final

from falbatch.sandbox.line import Line
from falbatch.sandbox.states import Event, Status, next_status
from falbatch.sandbox.verdict import CANCELLED_VERDICT, EXPIRED_VERDICT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from falbatch.sandbox.requests import Request

REQUEUE_PAUSE_S: Final = 0.5
"""Wait before fal tries a lost attempt again, before the speed factor: long enough for a poll to see it."""


class _Alarm(StrEnum):
    FINISH = "finish"
    READY = "ready"
    EXPIRE = "expire"


class Cancelled(StrEnum):
    """What a cancel call met (fal-protocol §3.5)."""

    DROPPED = "dropped"
    """It was queued and never runs."""
    ASKED = "asked"
    """It was running."""
    TOO_LATE = "too late"
    """It had completed before."""


@dataclass(slots=True)
class Account:
    """One account's share of the queue."""

    normal: Line = field(default_factory=Line)
    low: Line = field(default_factory=Line)
    running: int = 0
    peak: int = 0
    """Most requests ever running at once."""


class Engine:
    """All requests that are not completed, and the alarms that move them. One thread may touch it.

    `service_s(request)` gives the seconds of the attempt that begins; 0 completes it on the spot.
    `changed(request)` is called after each change of a request's life.
    """

    def __init__(
        self,
        concurrency: int,
        time_scale: float,
        service_s: Callable[[Request], float],
        changed: Callable[[Request], None],
        *,
        stops_running: bool = False,
    ) -> None:
        self.accounts: dict[str, Account] = {}
        self._concurrency = concurrency
        self._time_scale = time_scale
        self._service_s = service_s
        self._changed = changed
        self._stops_running = stops_running
        self._alarms: list[tuple[float, int, _Alarm, Request, int]] = []
        self._ticket = count()
        self._waiting: Counter[str] = Counter()

    def submit(self, request: Request, now: float) -> None:
        """Take in a new request, and start it if its account has room."""
        self._enqueue(request)
        self._changed(request)
        self._fill(self._account(request), now)

    def has_room(self, account: str) -> bool:
        """Whether a direct call of that account could start now. Where there is room, nobody waits for it."""
        known = self.accounts.get(account)
        return known is None or known.running < self._concurrency

    def begin(self, request: Request, now: float) -> None:
        """Start a direct call at once. The caller has seen that there is room; the queue is not touched."""
        self._run(self._account(request), request, now)

    def leave(self, request: Request, now: float) -> None:
        """The caller of a direct call is gone: it is cancelled where apps stop for that, else it runs on."""
        if request.status is Status.IN_PROGRESS and self._stops_running:
            request.verdict = CANCELLED_VERDICT
            self._stop(request, Event.CANCEL, now)

    def restore(self, requests: Iterable[Request], now: float) -> None:
        """Take in what an earlier process left, in the order of `requests`; the running go on where they were."""
        for request in requests:
            if request.status is Status.IN_QUEUE:
                self._enqueue(request)
            elif request.status is Status.IN_PROGRESS:
                account = self._account(request)
                account.running += 1
                account.peak = max(account.peak, account.running)
                self._set_alarm(request.finishes_at or now, _Alarm.FINISH, request)
                self._set_deadline(request)
        # First what was due meanwhile, deadlines among it; only then what room is left.
        self.advance(now)
        for account in self.accounts.values():
            self._fill(account, now)

    def advance(self, now: float) -> None:
        """Let everything happen that was due until `now`."""
        while self._alarms and self._alarms[0][0] <= now:
            at, _, alarm, request, attempt = heapq.heappop(self._alarms)
            if alarm is _Alarm.EXPIRE:
                if request.status is Status.IN_QUEUE:
                    self._leave_queue(request)
                    request.verdict = EXPIRED_VERDICT
                    self._end(request, Event.EXPIRE, at)
            elif request.attempt == attempt and request.status is not Status.COMPLETED:
                self._ring(alarm, request, at)

    def next_alarm(self) -> float | None:
        """When something is due next; None when nothing is."""
        return self._alarms[0][0] if self._alarms else None

    def cancel(self, request: Request, now: float) -> Cancelled:
        """Drop a queued request; stop a running one only if the apps of this sandbox do."""
        match request.status:
            case Status.COMPLETED:
                return Cancelled.TOO_LATE
            case Status.IN_QUEUE:
                self._leave_queue(request)
                request.verdict = CANCELLED_VERDICT
                self._end(request, Event.CANCEL, now)
                return Cancelled.DROPPED
            case Status.IN_PROGRESS:
                if self._stops_running:
                    request.verdict = CANCELLED_VERDICT
                    self._stop(request, Event.CANCEL, now)
                return Cancelled.ASKED

    def requeue(self, request: Request, now: float) -> None:
        """Lose the running attempt of `request`: after a pause it waits at the front of its line again."""
        account = self._account(request)
        account.running -= 1
        request.status = next_status(request.status, Event.REQUEUE)
        request.started_at = request.finishes_at = None
        self._waiting[request.endpoint] += 1
        self._set_alarm(now + REQUEUE_PAUSE_S * self._time_scale, _Alarm.READY, request)
        self._changed(request)
        self._fill(account, now)

    def position(self, request: Request) -> int:
        """How many requests of the account start before this queued one."""
        account = self._account(request)
        if request.low:
            return len(account.normal) + account.low.ahead_of(request)
        return account.normal.ahead_of(request)

    def waiting_on(self, endpoint: str) -> int:
        """How many requests of all accounts are IN_QUEUE on `endpoint`."""
        return self._waiting[endpoint]

    def _account(self, request: Request) -> Account:
        account = self.accounts.get(request.account)
        if account is None:
            account = self.accounts[request.account] = Account()
        return account

    def _line(self, request: Request) -> Line:
        account = self._account(request)
        return account.low if request.low else account.normal

    def _set_alarm(self, at: float, alarm: _Alarm, request: Request) -> None:
        heapq.heappush(self._alarms, (at, next(self._ticket), alarm, request, request.attempt))

    def _enqueue(self, request: Request) -> None:
        self._waiting[request.endpoint] += 1
        self._line(request).append(request)
        self._set_deadline(request)

    def _set_deadline(self, request: Request) -> None:
        if request.deadline is not None:
            self._set_alarm(request.deadline, _Alarm.EXPIRE, request)

    def _leave_queue(self, request: Request) -> None:
        self._waiting[request.endpoint] -= 1
        self._line(request).remove(request)

    def _ring(self, alarm: _Alarm, request: Request, at: float) -> None:
        if alarm is _Alarm.FINISH and request.status is Status.IN_PROGRESS:
            self._stop(request, Event.FINISH, at)
        elif alarm is _Alarm.READY and request.status is Status.IN_QUEUE:
            self._line(request).push_front(request)
            self._fill(self._account(request), at)

    def _fill(self, account: Account, now: float) -> None:
        while account.running < self._concurrency and (account.normal or account.low):
            request = (account.normal or account.low).pop()
            self._waiting[request.endpoint] -= 1
            self._run(account, request, now)

    def _run(self, account: Account, request: Request, now: float) -> None:
        if self._start(request, now) > 0:
            account.running += 1
            account.peak = max(account.peak, account.running)
        else:
            self._end(request, Event.FINISH, now)

    def _start(self, request: Request, now: float) -> float:
        """Begin an attempt; returns its seconds."""
        request.status = next_status(request.status, Event.START)
        request.attempt += 1
        request.started_at = now
        seconds = self._service_s(request)
        request.finishes_at = now + seconds
        if seconds > 0:
            self._set_alarm(request.finishes_at, _Alarm.FINISH, request)
            self._changed(request)
        return seconds

    def _stop(self, request: Request, event: Event, now: float) -> None:
        account = self._account(request)
        account.running -= 1
        self._end(request, event, now)
        self._fill(account, now)

    def _end(self, request: Request, event: Event, now: float) -> None:
        request.status = next_status(request.status, event)
        request.ended_at = now
        self._changed(request)
