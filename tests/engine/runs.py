"""A whole run over fakes, for the tests of what needs all its stages."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import anyio

from falbatch.core.events import Counter, JobEnded, RunEvent
from falbatch.core.money import Price, Purse, Tariff
from falbatch.core.reconcile import Listed
from falbatch.core.state import Event, State
from falbatch.engine.execute import Deps, Execution
from falbatch.engine.settings import ExecuteSettings
from falbatch.engine.spending import Spending
from falbatch.engine.stop import Stop
from tests.engine.fakes import (
    UNIX_AT_START,
    Attempt,
    FakeClock,
    FakeDirect,
    FakeFiles,
    FakePage,
    FakeQueue,
    FakeRequestList,
    FakeStore,
    a_request,
    an_input,
    planned,
    unanswered,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falbatch.core.callback import CallbackUrls
    from falbatch.core.record import OpenJob
    from falbatch.errors import FalbatchError


@dataclass
class Run:
    """A whole run over fakes. Built inside the loop."""

    jobs: int = 1
    settings: ExecuteSettings = field(default_factory=lambda: ExecuteSettings(submits_per_s=1000, polls_per_s=1000))
    paid: tuple[OpenJob, ...] = ()
    """Jobs that an earlier run began."""
    prices: Mapping[str, Price] = field(default_factory=dict)
    has_schemas: bool = True
    """Is it known how many images an endpoint makes by itself?"""
    purse: Purse | None = None
    """What earlier runs left of the money; None: nothing was spent."""
    attempts: Mapping[tuple[int, int], Attempt] = field(default_factory=dict)
    """Submits of earlier runs, by job and number, beside those that the unknown jobs have anyway."""
    others: tuple[OpenJob, ...] = ()
    """Further planned jobs, of another kind."""
    callbacks: CallbackUrls | None = None
    """Where fal is told to call."""

    def __post_init__(self) -> None:
        self.log: list[str] = []
        taken = {job.job_id for job in (*self.paid, *self.others)}
        self.clock = FakeClock()
        self.queue = FakeQueue(log=self.log)
        self.direct = FakeDirect(log=self.log)
        self.store = FakeStore(
            *self.paid,
            *self.others,
            *(planned(number) for number in range(1, self.jobs + 1) if number not in taken),
            log=self.log,
        )
        self.store.attempts |= self.attempts
        self.files = FakeFiles(log=self.log)
        self.heard: list[RunEvent] = []
        self.counter = Counter()
        self.stop = Stop()
        self.most_at_fal = 0
        self.requests = FakeRequestList()
        counted = [one for one, price in self.prices.items() if self.has_schemas and price.unit == "image"]
        known = {endpoint: {"num_images": 1} for endpoint in counted}
        tariffs = {endpoint: Tariff(price, known.get(endpoint)) for endpoint, price in self.prices.items()}
        self.spending = Spending(self.purse or Purse(self.settings.max_cost_nano), tariffs)
        deps = Deps(
            self.store,
            self.queue,
            self.requests,
            self.files,
            self.clock,
            self._listen,
            self.spending,
            self.direct,
            callbacks=self.callbacks,
        )
        self.execution = Execution(deps, self.settings, self.stop)

    def _listen(self, event: RunEvent) -> None:
        self.heard.append(event)
        self.counter(event)
        at_fal = sum(job.state in {State.SUBMITTING, State.SUBMITTED} for job in self.store.jobs.values())
        self.most_at_fal = max(self.most_at_fal, at_fal)

    async def run(self) -> FalbatchError | None:
        await self.execution.run()
        return self.execution.ended_by

    def ended(self) -> list[State]:
        return [event.state for event in self.heard if isinstance(event, JobEnded)]

    def events_of(self, number: int) -> list[Event]:
        mine = [change for change in self.store.changes if getattr(change, "job_id", None) == number]
        story = [getattr(change, "event", None) for change in mine]
        return [event for event in story if isinstance(event, Event)]


def settings_with(**more: Any) -> ExecuteSettings:
    return replace(ExecuteSettings(submits_per_s=1000, polls_per_s=1000), **more)


def at_fal(number: int, **more: Any) -> OpenJob:
    return planned(number, state=State.SUBMITTED, attempts=1, request=a_request(f"old{number}"), **more)


def with_result(number: int) -> OpenJob:
    return planned(number, state=State.COMPLETED, attempts=1, request=a_request(f"old{number}"))


async def stopped_after(run: Run, seconds: float) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(run.run)
        await anyio.sleep(seconds)
        run.execution.stop("SIGINT")


def swallowing(run: Run, *request_ids: str, after_s: float = 0.0) -> None:
    """The next submits are accepted under these ids, without an answer; each is listed after some time."""
    taken: list[tuple[float, Listed]] = []

    def swallow(request_id: str) -> Any:
        def answer(body: bytes) -> Exception:
            run.queue.accepted_at[request_id] = anyio.current_time()
            taken.append((anyio.current_time() + after_s, Listed(request_id, body, run.clock.unix_s())))
            return unanswered()

        return answer

    run.queue.on_submit.then(*(swallow(request_id) for request_id in request_ids))
    run.requests.on_page.default = lambda _endpoint: FakePage(
        tuple(one for from_s, one in taken if from_s <= anyio.current_time())
    )


def lost_before(seconds: float, *, named_id: str = "") -> Attempt:
    """A submit of an earlier run that was given up after a second, with 10 reserved."""
    left_at = UNIX_AT_START - seconds
    return Attempt(left_at, 10, left_at + 1.0, Event.NO_ANSWER, named_id)


def replica(number: int, of: int = 1, **more: Any) -> OpenJob:
    return planned(number, input_json=an_input(of), **more)
