"""What a canary's jobs say: rates, costs that fal told, times that were seen, and words for all of it."""

from __future__ import annotations

from typing import Any

from falbatch.core.projection import Span, Stratum
from falbatch.core.report import Money
from falbatch.core.state import State
from falbatch.core.trial import TriedJob, reckon
from falbatch.core.trialwords import NAMES_MOST, facts_of, job_facts, next_words
from falbatch.errors import ExitCode

NANO = 10**9
LEFT = {Stratum("a", 0): 90}


def tried(number: int, state: State = State.DONE, **more: Any) -> TriedJob:
    given: dict[str, Any] = {
        "job_id": number,
        "name": f"n{number}",
        "origin": f"m.csv:{number}",
        "stratum": Stratum("a", 0),
        "state": state,
        "input_json": b"{}",
        "error_type": None,
        "error": None,
        "cost": NANO,
        "is_billed": True,
        "units": 1.0,
        "span": Span(100.0, 102.0, 1.0),
        "run": 1,
        "is_torn": False,
        "files": (),
    }
    return TriedJob(**{**given, **more})


def test_success_is_counted_among_those_that_ended() -> None:
    failed = tried(2, State.FAILED, error_type="missing", error="no prompt", cost=0)
    waiting = tried(3, State.PLANNED, is_billed=False, cost=None, span=None)
    report = reckon([tried(1), failed, waiting], LEFT, Money(spent=NANO))
    assert (report.ended, report.done, report.exit_code) == (2, 1, ExitCode.INCOMPLETE)
    assert report.as_json()["success_rate"] == 0.5
    (failure,) = report.failures
    assert (failure.error_type, failure.count, failure.job, failure.example) == ("missing", 1, "n2", "no prompt")
    assert ("success", "1 of 3 jobs done (50%), 1 planned, 1 failed") in facts_of(report)
    assert report.cost.total == NANO + 90 * NANO, "a failure that cost nothing is no example of what a job costs"
    nothing = reckon([failed, tried(3, State.FAILED, error_type="missing", error="x", cost=0)], LEFT, Money())
    assert nothing.cost.total is None
    free = reckon([tried(1, cost=0), tried(2, cost=0)], LEFT, Money())
    assert free.cost.total == 0


def test_jobs_of_unknown_cost_are_flagged_and_count_for_nothing() -> None:
    report = reckon([tried(1), tried(2, cost=None), tried(3, cost=3 * NANO)], LEFT, Money(spent=4 * NANO))
    (cost,) = report.costs
    assert (cost.jobs, cost.unknown, cost.median, cost.least, cost.most) == (2, 1, NANO, NANO, 3 * NANO)
    assert dict(facts_of(report))["cost of a job, a"] == "median $1.00, $1.00 to $3.00 (2 jobs); not known of 1"
    assert report.cost.total == 4 * NANO + 90 * 2 * NANO


def test_where_no_cost_is_known_it_is_said_how_to_know_it() -> None:
    report = reckon([tried(1, cost=None)], LEFT, Money())
    told = dict(facts_of(report))
    assert "budget.unit_price" in told["cost of a job, a"]
    assert told["cost of the whole"] == "cannot be said: no cost of a is known"
    assert "cost not known" in job_facts(tried(1, cost=None))


def test_each_endpoint_has_a_cost_and_all_together_one() -> None:
    other = tried(2, stratum=Stratum("b", 0), cost=5 * NANO)
    report = reckon([tried(1), other], {}, Money(spent=6 * NANO))
    assert [cost.endpoint for cost in report.costs] == ["a", "b", ""]
    shown = report.as_json()
    assert [cost["endpoint"] for cost in shown["cost_by_endpoint"]] == ["a", "b"]
    assert shown["cost_per_job"]["max"] == 5.0


def test_what_was_at_fal_while_no_run_went_on_tells_no_time() -> None:
    torn = tried(2, span=Span(100.0, 9000.0, 1.0), is_torn=True)
    report = reckon([tried(1), torn], LEFT, Money())
    assert report.time is not None
    assert (report.time.jobs, report.time.median) == (1, 2.0)
    assert job_facts(torn) == ["$1.00"]


def test_requests_of_two_runs_say_nothing_together_of_how_many_run_at_once() -> None:
    early = [tried(number, span=Span(0.0, 2.0, 1.0), run=1) for number in range(2)]
    late = [tried(9 + number, span=Span(5000.0, 5002.0, 1.0), run=2) for number in range(4)]
    report = reckon([*early, *late], LEFT, Money())
    assert report.duration.at_once == 4.0


def test_nothing_left_is_said() -> None:
    report = reckon([tried(1)], {}, Money(spent=NANO))
    assert dict(facts_of(report))["cost of the whole"] == "$1.00: nothing is left to be submitted"
    assert "time of the whole" not in dict(facts_of(report))


def test_amounts_have_no_more_digits_than_they_are_worth() -> None:
    jobs = [tried(1, cost=668_851_234), tried(2, cost=5_231_149_876), tried(3, cost=1_234_567_890)]
    told = dict(facts_of(reckon(jobs, LEFT, Money(spent=7_134_569_000))))
    assert told["cost of a job, a"] == "median $1.23, $0.67 to $5.23 (3 jobs)"
    whole = "about $221.17, in 19 of 20 cases $7.13 to $787.32: $7.134569 spent, 90 jobs left at $2.38; "
    assert told["cost of the whole"].startswith(whole)


def test_a_spread_below_what_is_shown_is_about_one_amount() -> None:
    report = reckon([tried(1), tried(2, cost=NANO + 1000)], LEFT, Money(spent=2 * NANO))
    told = dict(facts_of(report))
    assert told["cost of a job, a"] == "about $1.00 (2 jobs)"
    assert "19 of 20" not in told["cost of the whole"]


def test_marked_jobs_are_done_and_told_by_their_flags() -> None:
    many = [tried(number, flags=("nsfw",), is_marked=True) for number in range(NAMES_MOST + 2)]
    black = tried(98, flags=("black", "nsfw"), is_marked=True)
    kept = tried(99, flags=("black",))
    report = reckon([*many, black, kept], {}, Money())
    assert [(group.flags, group.count) for group in report.flagged] == [(("black", "nsfw"), 1), (("nsfw",), 12)]
    told = dict(facts_of(report))
    assert told["success"] == "14 of 14 jobs done (100%), 13 of them flagged"
    names = ", ".join(f"n{number}" for number in range(NAMES_MOST))
    assert told["flagged"] == f"1 black, nsfw (n98); 12 nsfw ({names}, …)"
    assert report.as_json()["flagged"][0] == {"flags": ["black", "nsfw"], "count": 1, "jobs": ["n98"]}


def test_what_goes_on_is_told_apart_from_what_failed() -> None:
    states = (State.FAILED, State.CANCELLED, State.COMPLETED, State.PLANNED, State.UNKNOWN)
    jobs = [tried(number, state, error_type=f"of {state}", error="x") for number, state in enumerate(states)]
    report = reckon(jobs, {}, Money())
    assert [group.error_type for group in report.failures] == ["of failed", "of cancelled"]
    assert [group.error_type for group in report.stuck] == ["of completed", "of planned"]


def test_the_limit_is_said_beside_what_comes_next() -> None:
    report = reckon([tried(1)], {Stratum("a", 0): 1}, Money())
    assert next_words(report.with_next("go", None)) == "does the 1 job left"
    limited = report.with_next("go", NANO // 10)
    assert next_words(limited) == "does the 1 job left, as far as the limit of $0.10 allows"
    assert limited.as_json()["limit"] == 0.1
