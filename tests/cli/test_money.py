"""What a batch costs: a limit that holds, prices that are asked for or given, and failures that stop it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import MANIFEST, states

if TYPE_CHECKING:
    from tests.cli.conftest import Shell

EACH = 0.003
"""US dollars: one started megapixel of fal-ai/flux/schnell."""


def write(shell: Shell, jobs: int, extra: str = "") -> None:
    shell.write("small.yaml", MANIFEST.replace("[0, 4]", f"[0, {jobs}]") + extra)


def status(shell: Shell) -> dict[str, Any]:
    (shown,) = shell.falbatch("status", "small.yaml", "--json").objects()
    return shown


def billed(shell: Shell) -> float:
    total: float = shell.sandbox.ledger()["total_cost"]
    return total


def test_a_cost_limit_holds_with_hundreds_of_jobs_in_flight_and_a_higher_one_goes_on(shell: Shell) -> None:
    write(shell, 300, "limits: {in_flight: 256, submits_per_s: 1000, polls_per_s: 1000}\n")
    shell.sandbox.add_faults([{"on": "submit", "do": "delay:0.2"}])
    first = shell.falbatch("run", "small.yaml", "--json", "--max-cost", "0.25")
    shell.sandbox.clear_faults()
    report = first.objects()[-1]
    assert first.code == 7
    assert report["exit_code"] == 7
    assert billed(shell) == pytest.approx(83 * EACH)
    assert (report["states"]["done"], report["states"]["planned"]) == (83, 217)
    assert "the limit of $0.25 is reached: $0.249 spent" in report["run"]["stopped_by"]
    assert "--max-cost" in report["advice"]

    second = shell.falbatch("run", "small.yaml", "--max-cost", "$1")
    assert second.code == 0
    assert billed(shell) == pytest.approx(300 * EACH)
    assert shell.submits() == 300


def test_the_limit_counts_all_runs_of_the_batch(shell: Shell) -> None:
    write(shell, 10, f"budget: {{max_cost: {5 * EACH}}}\n")
    assert shell.falbatch("run", "small.yaml").code == 7
    assert shell.falbatch("run", "small.yaml").code == 7
    assert states(shell) == {"done": 5, "planned": 5}
    assert shell.submits() == 5
    assert shell.falbatch("run", "small.yaml", "--max-cost", "0.024").code == 7
    assert states(shell) == {"done": 8, "planned": 2}
    assert billed(shell) == pytest.approx(8 * EACH)


def test_a_limit_of_nothing_submits_nothing(shell: Shell) -> None:
    write(shell, 4)
    ran = shell.falbatch("run", "small.yaml", "--max-cost", "0")
    assert ran.code == 7
    assert shell.submits() == 0


@pytest.mark.parametrize("amount", ["lots", "-1", "nan", "inf", "1,5", ""])
def test_an_amount_that_is_none_is_refused(shell: Shell, amount: str) -> None:
    write(shell, 4)
    ran = shell.falbatch("run", "small.yaml", f"--max-cost={amount}")
    assert ran.code == 2
    assert "US dollars" in ran.err
    assert shell.submits() == 0


def test_without_a_price_a_cost_limit_is_refused_and_the_message_says_what_to_give(shell: Shell) -> None:
    write(shell, 4)
    shell.sandbox.add_faults([{"on": "platform", "do": "status:500"}])
    ran = shell.falbatch("run", "small.yaml", "--max-cost", "1")
    shell.sandbox.clear_faults()
    assert ran.code == 2
    assert "the price of fal-ai/flux/schnell" in ran.err
    assert "budget: {unit_price: 0.025}" in ran.err
    assert shell.submits() == 0
    assert states(shell) == {}, "nothing was written either"


def test_without_a_price_and_without_a_limit_a_batch_runs_uncounted(shell: Shell) -> None:
    write(shell, 4)
    shell.sandbox.add_faults([{"on": "platform", "do": "status:500"}])
    ran = shell.falbatch("run", "small.yaml", "--json")
    shell.sandbox.clear_faults()
    report = ran.objects()[-1]
    assert ran.code == 0
    assert (report["spent"], report["unpriced_requests"]) == (0, 4)


def test_what_ran_uncounted_is_counted_once_the_price_is_known(shell: Shell) -> None:
    write(shell, 4)
    shell.sandbox.add_faults([{"on": "platform", "do": "status:500"}])
    shell.falbatch("run", "small.yaml", "--limit", "3")
    shell.sandbox.clear_faults()
    report = shell.falbatch("run", "small.yaml", "--json").objects()[-1]
    assert report["spent"] == pytest.approx(billed(shell)) == pytest.approx(4 * EACH)
    assert report["unpriced_requests"] == 0


@pytest.mark.parametrize("price", ["0.003", "{fal-ai/flux/schnell: 0.003}"])
def test_the_users_own_price_needs_no_word_from_fal(shell: Shell, price: str) -> None:
    write(shell, 4, f"budget: {{max_cost: 0.009, unit_price: {price}}}\n")
    shell.sandbox.add_faults([{"on": "platform", "do": "status:500"}])
    ran = shell.falbatch("run", "small.yaml", "--no-validate")
    shell.sandbox.clear_faults()
    assert ran.code == 7
    assert states(shell) == {"done": 3, "planned": 1}
    assert shell.sandbox.stats()["requests"]["platform"] == {"500": 1}, "the question whether it is deprecated"


def test_a_price_is_asked_for_once_a_day(shell: Shell) -> None:
    write(shell, 4)
    for limit in ("1", "2", "3"):
        shell.falbatch("run", "small.yaml", "--limit", limit, "--max-cost", "1", "--no-validate")
    assert sum(shell.sandbox.stats()["requests"]["platform"].values()) == 3, "price, average, whether deprecated"


def test_status_says_what_was_spent_is_reserved_and_will_have_been_spent(shell: Shell) -> None:
    write(shell, 10, "limits: {in_flight: 1}\n")
    shell.sandbox.add_faults([{"on": "submit", "do": "drop_before", "nth": 2}])
    shell.falbatch("run", "small.yaml", "--max-cost", "0.012", "--reconcile-wait", "0")
    shell.sandbox.clear_faults()
    shown = status(shell)
    assert {state: count for state, count in shown["states"].items() if count} == {
        "done": 3,
        "unknown": 1,
        "planned": 6,
    }
    assert shown["spent"] == pytest.approx(billed(shell)) == pytest.approx(3 * EACH)
    assert shown["reserved"] == pytest.approx(EACH)
    assert shown["projected"] == pytest.approx(10 * EACH)
    told = shell.falbatch("status", "small.yaml").out
    assert "cost: $0.009 spent, $0.003 reserved, projected for the whole batch $0.03" in told


def test_a_locked_account_stops_the_batch_and_fails_nothing(shell: Shell) -> None:
    write(shell, 30, "limits: {in_flight: 4}\n")
    shell.sandbox.add_faults([{"on": "submit", "do": "lock", "nth": 7}])
    ran = shell.falbatch("run", "small.yaml", "--json")
    report = ran.objects()[-1]
    assert ran.code == 4
    assert report["states"]["failed"] == 0
    assert report["states"]["planned"] >= 30 - 11
    assert "Nothing was marked failed" in report["advice"]

    shell.sandbox.clear_faults()
    shell.sandbox.lock(locked=False)
    assert shell.falbatch("run", "small.yaml").code == 0
    assert states(shell) == {"done": 30}
    assert shell.sandbox.ledger()["count"] == 30


def test_equal_failures_in_a_row_stop_the_batch(shell: Shell) -> None:
    write(shell, 40, "limits: {in_flight: 1}\nbudget: {max_equal_failures: 5}\n")
    shell.sandbox.add_faults([{"on": "submit", "do": "fail:content_policy_violation"}])
    ran = shell.falbatch("run", "small.yaml", "--json")
    shell.sandbox.clear_faults()
    report = ran.objects()[-1]
    assert ran.code == 7
    assert "the last 5 jobs on fal-ai/flux/schnell all failed alike" in report["run"]["stopped_by"]
    assert (report["states"]["failed"], report["states"]["planned"]) == (5, 35)
    assert shell.submits() == 5
