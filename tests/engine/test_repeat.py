"""Calling again: as often as allowed, for the right errors, with the right pauses."""

from __future__ import annotations

import pytest

from falbatch.engine.reach import PATIENCE_AT_START_S, PATIENCE_S, Reach
from falbatch.engine.repeat import repeat
from falbatch.errors import FalUnreachable
from tests.engine.fakes import FakeClock, unsent

pytestmark = pytest.mark.anyio


class Flaky:
    """Fails as often as it is told to."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.slept_s: list[float] = []
        self.asked: list[tuple[int, str]] = []

    async def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.calls

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)

    def wait_s(self, failures: int, error: BaseException) -> float:
        self.asked.append((failures, str(error)))
        return failures * 10.0

    async def run(self, attempts: int | None = None) -> int:
        return await repeat(
            self,
            if_=lambda error: isinstance(error, KeyError),
            wait_s=self.wait_s,
            sleep=self.sleep,
            attempts=attempts,
        )


async def test_a_call_that_succeeds_is_made_once() -> None:
    flaky = Flaky()
    assert await flaky.run() == 1
    assert flaky.slept_s == []


async def test_failures_are_counted_from_one_and_each_has_its_pause() -> None:
    flaky = Flaky(KeyError("a"), KeyError("b"), KeyError("c"))
    assert await flaky.run() == 4
    assert flaky.slept_s == [10.0, 20.0, 30.0]
    assert flaky.asked == [(1, "'a'"), (2, "'b'"), (3, "'c'")]


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_attempts_are_all_calls_and_the_last_error_is_raised_as_it_is(attempts: int) -> None:
    flaky = Flaky(*(KeyError(number) for number in range(9)))
    with pytest.raises(KeyError, match=str(attempts - 1)):
        await flaky.run(attempts)
    assert flaky.calls == attempts
    assert len(flaky.slept_s) == attempts - 1


async def test_another_error_is_raised_at_once_first_or_later() -> None:
    first = Flaky(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await first.run()
    later = Flaky(KeyError("a"), ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await later.run()
    assert (first.calls, later.calls) == (1, 2)


class Watch(FakeClock):
    """A clock that is set by hand."""

    at_s = 0.0

    def now_s(self) -> float:
        return self.at_s


def test_silence_counts_from_the_first_call_that_failed() -> None:
    clock = Watch()
    reach = Reach(clock)
    clock.at_s = 1000.0
    reach.missed(unsent())
    clock.at_s += PATIENCE_AT_START_S - 1
    reach.missed(unsent())
    clock.at_s += 1
    with pytest.raises(FalUnreachable, match="20 s"):
        reach.missed(unsent())


def test_an_answer_starts_the_silence_again_and_earns_more_patience() -> None:
    clock = Watch()
    reach = Reach(clock)
    reach.missed(unsent())
    clock.at_s = 10.0
    reach.heard()
    clock.at_s = 5000.0
    reach.missed(unsent())
    clock.at_s += PATIENCE_S - 1
    reach.missed(unsent())
    clock.at_s += 1
    with pytest.raises(FalUnreachable):
        reach.missed(unsent())
