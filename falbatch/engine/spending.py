"""The batch's money during a run: every submit reserves what it may cost, every end settles (design §6, "money").

    reserve ─▶ submit ─▶ accepted ─▶ … ended ─▶ settle
                 ├─▶ refused ─▶ release
                 └─▶ no answer ─▶ lose … found ─▶ find

The limit holds with any number in flight, because what is reserved counts as spent. The amounts are values of
`core/money.py`; this class keeps the current one and is touched on the event loop only.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import anyio

from falbatch.core.identity import input_of
from falbatch.core.money import Bill, Purse, Tariff, cost_of, in_dollars, rate_of
from falbatch.errors import LimitReached

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falbatch.core.record import OpenJob


class Spending:
    """What is spent, reserved and left. Without a price for an endpoint, its jobs count nothing."""

    def __init__(self, purse: Purse, tariffs: Mapping[str, Tariff]) -> None:
        self.purse = purse
        self._tariffs = dict(tariffs)
        self._under_way: defaultdict[tuple[str, str | None], set[int]] = defaultdict(set)
        """Jobs that were reserved in this run, did not end yet and may cost something else than is reserved: by
        endpoint and variant of size. Variants of which none ended yet are one, None: each is tried alone."""
        self._places: dict[int, tuple[str, str | None]] = {}
        """Where each of them is in `_under_way`."""
        self._changed = anyio.Event()
        self._waiting = 0
        """Jobs that wait for room: without any, nobody need be woken."""
        self._is_waiting_in_vain = False

    async def reserve(self, job: OpenJob) -> int:
        """Reserve what `job` is expected to cost; returns nano-dollars. Waits while what is under way may leave room.

        Raises `LimitReached` when it cannot be afforded any more.
        """
        tariff = self._tariffs.get(job.endpoint)
        if tariff is None:
            return 0
        size = tariff.size(input_of(job.input_json))
        while True:
            tariff = self._tariffs[job.endpoint]
            amount = tariff.expected(size)
            at_once = float("inf") if self.purse.limit is None else tariff.at_once(size)
            place = (job.endpoint, tariff.variant(size) if tariff.known(size) else None)
            must_wait = len(self._under_way[place]) >= at_once
            if not must_wait and self.purse.has_room(amount):
                self.purse = self.purse.reserve(amount)
                if at_once != float("inf"):
                    self._under_way[place].add(job.job_id)
                    self._places[job.job_id] = place
                return amount
            if self._is_waiting_in_vain or (not must_wait and self.purse.at_fal == 0):
                raise LimitReached(self._words(amount), advice=ADVICE)
            self._waiting += 1
            try:
                await self._changed.wait()
            finally:
                self._waiting -= 1

    def release(self, job: OpenJob, amount: int) -> None:
        """A submit that had `amount` reserved was provably not accepted."""
        self.purse = self.purse.release(amount)
        self._ended(job)

    def lose(self, job: OpenJob, amount: int) -> None:
        """A submit that had `amount` reserved got no answer, or its request could not be followed to its end in this
        run: the reservation stays, and nobody waits for it."""
        self.purse = self.purse.lose(amount)
        self._ended(job)

    def find(self, amount: int, *, is_followed: bool) -> None:
        """The request of such a submit was found. Without anybody to follow it, it counts as spent."""
        self.purse = self.purse.find(amount)
        if not is_followed:
            self.purse = self.purse.settle(amount, amount)
        self._notify()

    def settle(self, job: OpenJob, units: float | None, *, failed_status: int | None = None) -> int | None:
        """The request of `job` ended. Returns what it cost, in nano-dollars; None where no price is known."""
        tariff = self._tariffs.get(job.endpoint)
        cost = cost_of(tariff.price if tariff else None, units, reserved=job.reserved, failed_status=failed_status)
        if tariff is not None and failed_status is None:
            size = tariff.size(input_of(job.input_json))
            self._tariffs[job.endpoint] = tariff.after(size, size.units if units is None else units)
        self.purse = self.purse.settle(job.reserved, cost or 0)
        self._ended(job)
        return cost

    def bill(self, job: OpenJob, units: float | None) -> Bill | None:
        """What is to be kept on record of the `units` that `job` was billed, for later runs to learn from."""
        tariff = self._tariffs.get(job.endpoint)
        if tariff is None:
            return None
        size = tariff.size(input_of(job.input_json))
        rate = rate_of(size, units)
        return None if rate is None else Bill(job.endpoint, tariff.measure, tariff.variant(size), rate)

    def wait_no_more(self) -> None:
        """Some reservation will never be settled (a bug of ours): what there is no room for now has none later."""
        self._is_waiting_in_vain = True
        self._notify()

    def _ended(self, job: OpenJob) -> None:
        if (place := self._places.pop(job.job_id, None)) is not None:
            self._under_way[place].discard(job.job_id)
        self._notify()

    def _notify(self) -> None:
        if self._waiting:
            self._changed.set()
            self._changed = anyio.Event()

    def _words(self, amount: int) -> str:
        purse = self.purse
        reserved = f", {in_dollars(purse.lost)} reserved for jobs whose end is not known" if purse.lost else ""
        return (
            f"the limit of {in_dollars(purse.limit or 0)} is reached: {in_dollars(purse.spent)} spent{reserved},"
            f" and the next job would cost about {in_dollars(amount)}"
        )


ADVICE = "Raise budget.max_cost or --max-cost; the same command goes on."
