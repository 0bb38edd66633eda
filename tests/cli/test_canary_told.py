"""What a canary says: flags, failures and what to do about them, prices, values, limits, and that nothing is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import kites, states
from tests.pages import page_in

if TYPE_CHECKING:
    from tests.cli.conftest import Ran, Shell
    from tests.pages import ReadPage

EACH = 0.003
"""US dollars: one started megapixel of fal-ai/flux/schnell."""


def run(shell: Shell, *flags: str, rules: tuple[dict[str, Any], ...] = ()) -> Ran:
    """A run of small.yaml for people while fal does what `rules` say."""
    shell.sandbox.add_faults(rules)
    try:
        return shell.falbatch("run", "small.yaml", *flags)
    finally:
        shell.sandbox.clear_faults()


def told(shell: Shell, count: int) -> dict[str, Any]:
    """The canary's own object, when it is shown again."""
    ran = run(shell, "--canary", str(count), "--json")
    return next(one for one in ran.objects() if one["event"] == "canary")


def page(shell: Shell) -> ReadPage:
    return page_in(shell.folder / "out" / "canary.html")


FLAGS = ({"on": "submit", "do": "nsfw", "seeds": [1]}, {"on": "submit", "do": "black", "seeds": [2]})


def test_flagged_results_are_counted_named_and_have_badges(shell: Shell) -> None:
    shell.write("small.yaml", kites())
    ran = run(shell, "--canary", "4", rules=FLAGS)
    assert ran.code == 0
    assert "success: 4 of 4 jobs done (100%), 2 of them flagged" in ran.out
    assert "flagged: 1 black (kite-2); 1 black, nsfw (kite-1)" in ran.out
    assert told(shell, 4)["flagged"] == [
        {"flags": ["black"], "count": 1, "jobs": ["kite-2"]},
        {"flags": ["black", "nsfw"], "count": 1, "jobs": ["kite-1"]},
    ]
    badges = [given for given in page(shell).of("p") if given.get("class") == "badge"]
    assert len(badges) == 3
    assert "1 black (kite-2); 1 black, nsfw (kite-1)" in page(shell).text


def test_keep_counts_no_flags_and_shows_them_on_the_cards(shell: Shell) -> None:
    shell.write("small.yaml", kites("keep"))
    ran = run(shell, "--canary", "4", rules=FLAGS)
    assert (ran.code, "flagged" in ran.out) == (0, False)
    assert told(shell, 4)["flagged"] == []
    assert len([given for given in page(shell).of("p") if given.get("class") == "badge"]) == 3


def test_results_that_are_no_success_cost_and_are_shown_with_what_to_do(shell: Shell) -> None:
    shell.write("small.yaml", kites("fail"))
    lacks = {"on": "submit", "do": "fewer", "seeds": [3]}
    ran = run(shell, "--canary", "4", rules=(*FLAGS, lacks))
    assert ran.code == 3
    assert "success: 1 of 4 jobs done (25%), 3 failed" in ran.out
    assert "the same command tries again" not in ran.out
    assert "2  flagged: its result is flagged: " in ran.out
    assert "With `output.flagged: mark`, `falbatch retry --missing-files`" in ran.out
    assert "`falbatch retry` runs the job again, at its price" in ran.out
    found = told(shell, 4)
    assert (found["success_rate"], found["flagged"], found["stuck"]) == (0.25, [], [])
    bill = shell.sandbox.ledger()["total_cost"]
    assert found["projected_cost"]["spent"] == pytest.approx(bill)
    assert found["cost_per_job"]["jobs"] == 4, "what was paid for counts, whatever came of it"
    assert len([name for name in page(shell).images if "-rejected-" in name]) == 5
    assert shell.submits() == 4


def test_a_refused_job_is_not_said_to_be_tried_again(shell: Shell) -> None:
    shell.write("small.yaml", kites())
    ran = run(shell, "--canary", "2", rules=({"on": "submit", "do": "fail:content_policy_violation", "nth": 1},))
    assert ran.code == 3
    assert "try: the prompt or an input was refused by the model's policy; change it" in ran.out
    assert "the same command" not in ran.out
    assert "the same command" not in page(shell).text


def test_what_a_later_run_goes_on_with_is_told_apart_from_failures(shell: Shell) -> None:
    shell.write("small.yaml", kites())
    ran = run(shell, "--canary", "1", rules=({"on": "file", "do": "status:500"},))
    assert ran.code == 3
    assert "unfinished in the canary:" in ran.out
    assert "failed in the canary:" not in ran.out
    assert "try: the same command tries again" in ran.out
    assert "the same command goes on with it" in page(shell).text
    assert run(shell, "--canary", "1").code == 0


def test_the_price_of_the_canary_is_told_apart_from_all_that_is_left(shell: Shell) -> None:
    shell.write("small.yaml", kites(jobs=20))
    ran = run(shell, "--canary", "2")
    said = [line.strip() for line in ran.err.splitlines()]
    at = said.index("cost of the canary, 2 jobs: $0.012")
    assert said[at + 1] == "cost of all that is left, the canary included:"
    assert said[at + 2].split()[:4] == ["fal-ai/flux/schnell", "20", "jobs", "$0.12"]
    ran = run(shell, "--canary", "3", "--json")
    (plan,) = [one for one in ran.objects() if one["event"] == "plan"]
    assert (plan["actions"]["submit"], plan["canary"]["cost"]) == (1, pytest.approx(2 * EACH))
    assert plan["cost"]["left"] == pytest.approx(18 * 2 * EACH)
    assert "cost of the canary, 1 job: $0.006\n" in ran.err


def test_a_canary_whose_price_nobody_knows_says_so(shell: Shell) -> None:
    shell.write("small.yaml", kites())
    ran = run(shell, "--canary", "1", "--json", rules=({"on": "platform", "do": "status:500"},))
    assert "cost of the canary, 1 job: not known\n" in ran.err
    (plan,) = [one for one in ran.objects() if one["event"] == "plan"]
    assert plan["canary"]["cost"] is None


def test_what_the_limit_allows_is_said_beside_the_next_command(shell: Shell) -> None:
    shell.write("small.yaml", kites(jobs=10))
    ran = run(shell, "--canary", "1", "--max-cost", "0.015")
    assert ran.code == 0
    words = "does the 9 jobs left, as far as the limit of $0.015 allows"
    assert f"next: `falbatch run small.yaml --max-cost 0.015` {words}\n" in ran.out
    assert words in page(shell).text
    shell.write("small.yaml", kites(jobs=10, more="budget: {max_cost: 0.02}"))
    assert told(shell, 1)["limit"] == 0.02, "the manifest's own limit holds as well"
    assert "as far as the limit of $0.02 allows" in page(shell).text


def test_where_nothing_is_left_to_try_it_is_said_and_the_page_is_left_alone(shell: Shell) -> None:
    shell.write("small.yaml", kites())
    run(shell, "--canary", "2")
    before = (shell.folder / "out" / "canary.html").read_bytes()
    assert run(shell).code == 0
    ran = run(shell, "--canary", "2")
    assert (ran.code, shell.submits()) == (0, 4)
    assert "small: nothing to do, 4 of 4 jobs are done" in ran.out
    assert "canary: nothing is left to try, no job is still to be submitted" in ran.out
    assert "tried before" not in ran.out
    assert "tries more" not in ran.out
    found = told(shell, 2)
    assert (found["jobs"], found["page"], found["next"]) == (0, "", "")
    assert (shell.folder / "out" / "canary.html").read_bytes() == before


def test_where_nothing_is_left_to_try_failures_are_told_and_what_is_at_fal_comes_home(shell: Shell) -> None:
    shell.write("small.yaml", kites())
    refused = {"on": "submit", "do": "fail:content_policy_violation", "nth": 1}
    assert run(shell, rules=(refused, {"on": "file", "do": "status:500"})).code == 3
    assert states(shell) == {"completed": 3, "failed": 1}
    ran = run(shell, "--canary", "2")
    assert (ran.code, states(shell), shell.submits()) == (3, {"done": 3, "failed": 1}, 4)
    assert "small: nothing is left to try: download 3\n" in ran.err
    assert "content_policy_violation" in ran.out
    ran = run(shell, "--canary", "2")
    assert ran.code == 3
    assert "3 of 4 jobs are done; `falbatch retry` does the 1 other again" in ran.out
    assert not (shell.folder / "out" / "canary.html").exists()


def test_a_larger_one_is_offered_only_where_it_would_try_more(shell: Shell) -> None:
    shell.write("small.yaml", kites())
    run(shell, "--canary", "3")
    assert "nothing was submitted; a larger one tries more\n" in run(shell, "--canary", "3").out
    run(shell, "--canary", "4")
    again = run(shell, "--canary", "4").out
    assert "small: this canary was tried before, nothing was submitted\n" in again
    assert "success: 4 of 4 jobs done (100%)" in again


def test_cards_have_the_values_that_differ_and_no_others(shell: Shell) -> None:
    text = kites().replace("width: 64,", 'width: "{{ 64 + seed }}",').replace("num_images: 2", "num_images: 1")
    shell.write("small.yaml", text)
    run(shell, "--canary", "3")
    shown = page(shell).text
    widths = {one["input"]["image_size"]["width"] for one in shell.sandbox.ledger()["executions"]}
    assert len(widths) == 3
    assert all(f"image_size.width: {width}" in shown for width in widths)
    assert "image_size.height" not in shown
    assert "num_images" not in shown
    assert "seed: " not in shown, "what is told already is not told twice"


def test_a_file_among_the_values_has_its_name(shell: Shell) -> None:
    for name in ("one", "two"):
        shell.write(f"{name}.png", f"picture {name}")
    shell.write(
        "small.yaml",
        "name: small\nendpoint: fal-ai/flux/dev/image-to-image\nmatrix: {of: [one, two]}\n"
        'input: {prompt: "at night", image_url: {file: "{{ of }}.png"}}\noutput: {dir: out}\n',
    )
    ran = run(shell, "--canary", "2", "--no-validate")
    assert ran.code in {0, 3}, ran.err
    assert {"image_url: one.png", "image_url: two.png"} <= set(page(shell).text.splitlines())


def test_one_job_is_one_job(shell: Shell) -> None:
    shell.write("small.yaml", kites(jobs=2))
    ran = run(shell, "--canary", "1")
    assert "small: 1 job finished in " in ran.out
    assert "(1 submitted, 0 further attempts, 0 refusals, " in ran.out
    assert "canary of 1 job:\n" in ran.out
    assert "success: 1 of 1 job done (100%)" in ran.out
    assert "cost of a job, fal-ai/flux/schnell: $0.006 (1 job)\n" in ran.out
    assert "1 job left at $0.006" in ran.out
    assert "for 1 more job, " in ran.out
    assert "does the 1 job left\n" in ran.out
    assert "1 jobs" not in ran.out + ran.err


def test_a_run_over_a_part_leaves_the_canary_as_it_is(shell: Shell) -> None:
    shell.write("small.yaml", kites(jobs=12))
    assert run(shell, "--canary", "3").code == 0
    before = shell.sandbox.ledger()["count"]
    assert run(shell, "--where", "seed == 11").code == 0
    tried = shell.sandbox.ledger()["count"]
    assert tried - before <= 1
    again = run(shell, "--canary", "3")
    assert again.code == 0
    assert shell.sandbox.ledger()["count"] == tried
    assert "canary of 3 jobs" in again.out


def test_a_card_has_the_seed_that_was_really_sent(shell: Shell) -> None:
    shell.write("small.yaml", kites("reroll"))
    ran = run(shell, "--canary", "4", rules=({"on": "submit", "do": "nsfw", "seeds": [1]},))
    assert ran.code == 0, ran.out
    sent = sorted(one["input"]["seed"] for one in shell.sandbox.ledger()["executions"])
    (drawn,) = [seed for seed in sent if seed > 3]
    text = page(shell).text
    assert f"seed {drawn}" in text
    assert "seed 1 " not in f"{text} ".replace(f"seed {drawn}", "")


def test_the_next_command_keeps_what_this_one_was_told(shell: Shell) -> None:
    shell.write("small.yaml", kites())
    ran = run(shell, "--canary", "2", "--no-validate", "--ask-above", "3")
    assert "small.yaml --ask-above 3 --no-validate" in ran.out
