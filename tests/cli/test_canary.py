"""A canary as a user meets it: a few jobs spread over the batch, what they tell of the rest, and the rest later."""

from __future__ import annotations

import json
import os
import pty
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from falbatch.cli import commands
from falbatch.core.canary import Tried, narrowed
from falbatch.core.money import NANO
from falbatch.core.page import policy
from falbatch.core.plan import Action, Change, Plan
from falbatch.core.pricing import Certainty, Cost, EndpointCost
from tests.pages import page_in

if TYPE_CHECKING:
    from tests.cli.conftest import Ran, Shell

EACH = 0.003
"""US dollars: one started megapixel of fal-ai/flux/schnell."""

STYLES = ("oil", "ink", "<b>wax</b>")

MANIFEST = """\
version: 1
name: small
endpoint: fal-ai/flux/schnell
rows: {range: [0, 8]}
matrix: {style: [oil, ink, "<b>wax</b>"]}
input:
  prompt: "<script>alert(1)</script> {{ style }} {{ row.value }}"
  image_size: {width: 64, height: 64}
  seed: "{{ row.value }}"
output: {dir: out, name: "{{ style | slug }}-{{ row.value }}"}
"""


def canary(ran: Ran) -> dict[str, Any]:
    """The canary's own object of a run with --json."""
    (found,) = [one for one in ran.objects() if one["event"] == "canary"]
    return found


def report(ran: Ran) -> dict[str, Any]:
    (found,) = [one for one in ran.objects() if one["event"] == "report"]
    return found


def run(shell: Shell, *flags: str) -> Ran:
    return shell.falbatch("run", "small.yaml", "--json", *flags)


def executed(shell: Shell) -> Counter[str]:
    """What fal has executed, and would bill, by input."""
    return Counter(json.dumps(one["input"], sort_keys=True) for one in shell.sandbox.ledger()["executions"])


def by_style(shell: Shell) -> Counter[str]:
    return Counter(one["input"]["prompt"].split()[-2] for one in shell.sandbox.ledger()["executions"])


@pytest.fixture(autouse=True)
def manifest(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)


def test_a_few_of_all_strata_run_and_the_next_run_does_the_rest_and_repeats_nothing(shell: Shell) -> None:
    ran = run(shell, "--canary", "6")
    assert ran.code == 0
    found = canary(ran)
    assert (found["jobs"], found["ended"], found["done"], found["success_rate"]) == (6, 6, 6, 1.0)
    assert by_style(shell) == dict.fromkeys(("oil", "ink", "<b>wax</b>"), 2)
    assert {state: count for state, count in report(ran)["states"].items() if count} == {"done": 6, "planned": 18}
    assert found["left"] == 18
    assert found["cost_per_job"] == {
        "endpoint": "fal-ai/flux/schnell",
        "jobs": 6,
        "unknown": 0,
        "median": EACH,
        "min": EACH,
        "max": EACH,
    }
    assert found["projected_cost"]["total"] == pytest.approx(24 * EACH)
    assert found["projected_cost"]["low"] == pytest.approx(24 * EACH)
    assert found["time_per_job"]["jobs"] == 6
    assert found["projected_duration"]["seconds"] is not None
    assert found["next"] == "falbatch run small.yaml"
    assert "canary of 6 of 24 jobs: submit 6; 18 are left for later" in ran.err
    assert "6/6 done" in ran.err

    rest = run(shell)
    assert rest.code == 0
    assert [one for one in rest.objects() if one["event"] == "canary"] == []
    assert set(executed(shell).values()) == {1}
    assert len(executed(shell)) == 24


def test_the_contact_sheet_shows_every_picture_and_runs_nothing(shell: Shell) -> None:
    ran = run(shell, "--canary", "6")
    place = shell.folder / canary(ran)["page"]
    page = page_in(place)
    pictures = {file.name for file in (shell.folder / "out").glob("*.png")} | {
        file.name for file in (shell.folder / "out").glob("*.jp*g")
    }
    assert len(pictures) == 6
    assert set(page.images) == pictures
    assert all(image["loading"] == "lazy" for image in page.of("img"))
    assert page.policy == policy()
    assert not page.of("script")
    assert not page.of("b")
    assert "<script>alert(1)</script>" in page.text
    assert "style=<b>wax</b>" in page.text
    assert "$0.003" in page.text
    assert [attribute for _, given in page.tags for attribute in given if attribute.startswith(("on", "style"))] == []


def test_the_words_for_people_say_what_comes_next(shell: Shell) -> None:
    ran = shell.falbatch("run", "small.yaml", "--canary", "6")
    assert ran.code == 0
    assert "success: 6 of 6 jobs done (100%)" in ran.out
    assert "cost of a job, fal-ai/flux/schnell: $0.003 (6 jobs, all alike)" in ran.out
    assert "cost of the whole: about $0.072: $0.018 spent, 18 jobs left at $0.003" in ran.out
    assert "time of the whole:" in ran.out
    assert "look at it: out/canary.html" in ran.out
    assert "next: `falbatch run small.yaml` does the 18 jobs left" in ran.out


def test_the_same_command_again_submits_nothing_and_a_larger_one_tries_more(shell: Shell) -> None:
    first = canary(run(shell, "--canary", "6"))
    again = run(shell, "--canary", "6")
    assert again.code == 0
    assert canary(again) == first
    assert shell.submits() == 6
    assert "nothing was submitted" in shell.falbatch("run", "small.yaml", "--canary", "6").out
    more = run(shell, "--canary", "12")
    assert canary(more)["done"] == 12
    assert set(by_style(shell).values()) == {4}, "shares are fair over both"
    assert canary(run(shell, "--canary", "3"))["jobs"] == 12, "what was tried stays"
    assert shell.submits() == 12
    assert canary(run(shell, "--canary", "100"))["jobs"] == 24
    assert set(executed(shell).values()) == {1}


def test_another_folder_with_the_same_batch_tries_the_same_jobs(shell: Shell) -> None:
    run(shell, "--canary", "5")
    first = executed(shell)
    run(shell, "--canary", "5", "--output", "other")
    assert executed(shell) == first + first


def test_after_a_run_that_was_stopped_a_canary_tries_what_is_left(shell: Shell) -> None:
    run(shell, "--max-cost", str(5 * EACH))
    assert shell.submits() == 5
    found = canary(run(shell, "--canary", "4"))
    assert (found["jobs"], found["done"], found["left"]) == (4, 4, 15)
    assert len(executed(shell)) == 9


def test_an_edit_has_the_canary_try_what_is_new(shell: Shell) -> None:
    run(shell, "--canary", "6")
    shell.write("small.yaml", MANIFEST.replace("<script>alert(1)</script>", "a better"))
    found = canary(run(shell, "--canary", "6"))
    assert (found["done"], found["left"]) == (6, 18)
    assert shell.submits() == 12


def test_a_part_of_the_manifest_has_a_canary_of_its_own(shell: Shell) -> None:
    ran = run(shell, "--canary", "3", "--where", "style != 'oil'")
    found = canary(ran)
    assert (found["done"], found["left"]) == (3, 13)
    assert set(by_style(shell)) == {"ink", "<b>wax</b>"}
    assert found["next"] == "falbatch run small.yaml --where 'style != '\"'\"'oil'\"'\"''"
    whole = canary(run(shell, "--canary", "6"))
    assert (whole["done"], whole["left"]) == (6, 18)
    assert set(by_style(shell).values()) == {2}


def test_failed_jobs_are_told_by_kind_and_are_cards_with_advice(shell: Shell) -> None:
    shell.sandbox.add_faults([{"on": "submit", "do": "fail:content_policy_violation", "nth": 2}])
    ran = run(shell, "--canary", "6")
    shell.sandbox.clear_faults()
    found = canary(ran)
    assert ran.code == 3
    assert (found["done"], found["success_rate"]) == (5, pytest.approx(5 / 6))
    (failure,) = found["failures"]
    assert (failure["error_type"], failure["count"]) == ("content_policy_violation", 1)
    text = page_in(shell.folder / found["page"]).text
    assert "failed: content_policy_violation" in text
    assert "change it" in text
    assert run(shell, "--canary", "6").code == 3
    assert shell.submits() == 6, "a failed job is not tried again by itself"


def test_failures_of_before_are_not_the_canarys(shell: Shell) -> None:
    shell.sandbox.add_faults([{"on": "submit", "do": "fail:content_policy_violation", "nth": 1}])
    assert run(shell, "--limit", "1").code == 3
    shell.sandbox.clear_faults()
    assert run(shell, "--canary", "3").code == 0


def test_without_a_price_the_cost_is_said_to_be_unknown(shell: Shell) -> None:
    shell.sandbox.add_faults([{"on": "platform", "do": "status:500"}])
    ran = run(shell, "--canary", "3")
    shell.sandbox.clear_faults()
    found = canary(ran)
    assert (found["cost_per_job"]["median"], found["cost_per_job"]["unknown"]) == (None, 3)
    assert found["projected_cost"]["total"] is None
    assert "no cost of fal-ai/flux/schnell is known" in found["projected_cost"]["why"]


def test_the_cost_limit_holds_and_the_report_tells_what_there_is(shell: Shell) -> None:
    ran = run(shell, "--canary", "6", "--max-cost", str(4 * EACH))
    assert ran.code == 7
    found = canary(ran)
    assert (found["jobs"], found["done"]) == (6, 4)
    assert found["states"]["planned"] == 2
    assert run(shell, "--canary", "6").code == 0
    assert shell.submits() == 6


def test_dead_links_that_are_asked_again_leave_the_canary_as_it_is(shell: Shell) -> None:
    shell.sandbox.add_faults([{"on": "file", "do": "status:404"}])
    assert run(shell, "--canary", "2").code == 3
    shell.sandbox.clear_faults()
    shell.falbatch("retry", "small.yaml", "--missing-files")
    assert canary(run(shell, "--canary", "2"))["done"] == 2
    assert shell.submits() == 2


def test_a_page_of_somebody_else_is_not_written_over(shell: Shell) -> None:
    shell.write("out/canary.html", "<p>mine</p>")
    assert canary(run(shell, "--canary", "2"))["page"] == "out/canary-2.html"
    assert canary(run(shell, "--canary", "2"))["page"] == "out/canary-2.html"
    assert (shell.folder / "out" / "canary.html").read_text() == "<p>mine</p>"


def test_a_picture_that_was_deleted_is_said_to_be_gone(shell: Shell) -> None:
    found = canary(run(shell, "--canary", "2"))
    page = page_in(shell.folder / found["page"])
    (shell.folder / "out" / page.images[0]).unlink()
    run(shell, "--canary", "2")
    page = page_in(shell.folder / found["page"])
    assert len(page.images) == 1
    assert "no longer in the folder" in page.text


def test_texts_are_shown_as_texts(shell: Shell) -> None:
    shell.write(
        "small.yaml",
        "name: small\nendpoint: fal-ai/any-llm\nrows: {range: [0, 4]}\n"
        'input: {model: openai/gpt-4o-mini, prompt: "<i>why</i> {{ row.value }}"}\noutput: {dir: out}\n',
    )
    ran = run(shell, "--canary", "2")
    page = page_in(shell.folder / canary(ran)["page"])
    assert len(page.of("pre")) == 2
    assert "<i>why</i>" in page.text
    assert not page.of("i")


def test_who_is_asked_is_asked_about_the_few(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, b"y\n")
    plan = Plan(
        name="x",
        total=100,
        output_dir="out",
        actions={Action.SUBMIT: 90, Action.WAIT: 0, Action.DOWNLOAD: 0, Action.SKIP: 10},
        changes=dict.fromkeys(Change, 0),
        reasons={},
        orphans=0,
        first=(),
        changed=(),
        orphaned=(),
        cost=Cost(
            (EndpointCost("a/b", 90, 90.0, "image", NANO, 1.0, 90 * NANO, None, None, Certainty.EXACT, "", NANO),)
        ),
    )
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        assert commands._Display(is_json=False).confirm(narrowed(plan, 10, Tried()))
    os.close(ours)
    said = capsys.readouterr().err
    assert said.endswith("Submit 10 of 90 jobs to fal for $10.00? They will be billed. [y/N] ")


@pytest.mark.parametrize(
    "flags",
    [
        ("--canary", "0"),
        ("--canary", "some"),
        ("--canary", "10001"),
        ("--canary", "5", "--retry-failed"),
        ("--canary", "5", "--resubmit-unknown"),
    ],
)
def test_what_makes_no_sense_is_refused(shell: Shell, flags: tuple[str, ...]) -> None:
    ran = shell.falbatch("run", "small.yaml", *flags)
    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert not (shell.folder / "out").exists()
