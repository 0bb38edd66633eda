"""Results that came with HTTP 200 and are flagged or lack something: told, failed or rolled again, as the manifest
says; the bill is what is on record."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from PIL import Image

import falbatch
from falbatch.core.model import JobKey
from falbatch.core.seeds import seed_of
from tests.cli.conftest import Shell, kites, states

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_ONCE = ("--reconcile-wait", "0")
NSFW = {"on": "submit", "do": "nsfw", "seeds": [1]}
BLACK = {"on": "submit", "do": "black", "seeds": [2]}
LACKING = (
    {"on": "submit", "do": "fewer", "seeds": [1]},
    {"on": "submit", "do": "error_in_result", "seeds": [2]},
    {"on": "submit", "do": "empty", "seeds": [3]},
)

LOST_FILES = {"on": "file", "do": "status:500"}
COSTS = {"FALBATCH_RUN_URL": "https://run.fal.example"}
"""A fal that is not all on this machine, and so may cost."""


@contextmanager
def faults(shell: Shell, *rules: dict[str, Any]) -> Iterator[None]:
    shell.sandbox.add_faults(rules)
    try:
        yield
    finally:
        shell.sandbox.clear_faults()


def run(shell: Shell, text: str, *rules: dict[str, Any], code: int = 0, words: tuple[str, ...] = ()) -> dict[str, Any]:
    """A run of `text` while fal does what `rules` say; the report."""
    shell.write("small.yaml", text)
    with faults(shell, *rules):
        ran = shell.falbatch("run", "small.yaml", "--json", *words)
    assert ran.code == code, ran.out + ran.err
    return ran.objects()[-1]


def export(shell: Shell, *words: str) -> dict[str, dict[str, Any]]:
    """The exported jobs by name."""
    every = ("--state", "done", "--state", "failed")
    return {job["name"]: job for job in shell.falbatch("export", "small.yaml", *(words or every)).objects()}


def executions(shell: Shell) -> Counter[tuple[str, int]]:
    """What fal has run and billed: (request id, seed)."""
    ledger = shell.sandbox.ledger()["executions"]
    return Counter((one["request_id"], one["input"]["seed"]) for one in ledger)


def pictures(shell: Shell) -> list[str]:
    return sorted(path.name for path in (shell.folder / "out").glob("*.*") if path.suffix in {".png", ".jpg", ".webp"})


def is_all_black(shell: Shell, name: str) -> bool:
    with Image.open(shell.folder / "out" / name) as picture:
        return max(picture.convert("L").tobytes()) <= 10


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_by_default_flagged_jobs_are_done_and_listed_apart(shell: Shell, kind: str) -> None:
    report = run(shell, kites(kind=kind), NSFW, BLACK)
    assert report["states"]["done"] == 4
    assert report["flagged"] == [
        {"flags": ["black"], "count": 1, "jobs": ["kite-2"]},
        {"flags": ["black", "nsfw"], "count": 1, "jobs": ["kite-1"]},
    ]
    (status,) = shell.falbatch("status", "small.yaml", "--json").objects()
    assert status["flagged"] == report["flagged"]
    for words in (("status", "small.yaml"), ("run", "small.yaml")):
        told = shell.falbatch(*words)
        assert (told.code, "flagged: 2 jobs are done" in told.out) == (0, True)
        assert "1  black, nsfw: kite-1\n" in told.out
    jobs = export(shell)
    assert {name: job["flags"] for name, job in jobs.items()} == {
        "kite-0": [],
        "kite-1": ["black", "nsfw"],
        "kite-2": ["black"],
        "kite-3": [],
    }
    assert [file["black"] for file in jobs["kite-1"]["files"]] == [True, True]
    assert [job["lineage"] for job in jobs.values()] == [[]] * 4
    black = {name for name in pictures(shell) if is_all_black(shell, name)}
    assert {name.partition(".")[0] for name in black} == {"kite-1-1", "kite-1-2", "kite-2-1", "kite-2-2"}
    assert len(pictures(shell)) == 8
    csv = shell.falbatch("export", "small.yaml", "--format", "csv").out
    assert ",black;nsfw," in csv


def test_keep_leaves_it_to_the_export(shell: Shell) -> None:
    report = run(shell, kites("keep"), NSFW)
    assert (report["states"]["done"], report["flagged"]) == (4, [])
    assert "flagged" not in shell.falbatch("status", "small.yaml").out
    assert export(shell)["kite-1"]["flags"] == ["black", "nsfw"]


def test_fail_fails_them_and_the_user_may_take_them_after_all_at_no_charge(shell: Shell) -> None:
    report = run(shell, kites("fail"), NSFW, code=3)
    (group,) = report["failures"]
    assert (group["error_type"], group["count"], group["job"]) == ("flagged", 1, "kite-1")
    assert "output.flagged" in group["advice"]
    assert states(shell) == {"done": 3, "failed": 1}
    assert [name for name in pictures(shell) if "rejected" in name] == [
        "kite-1-1-rejected-1.png",
        "kite-1-2-rejected-1.png",
    ]
    again = shell.falbatch("retry", "small.yaml", "--missing-files")
    assert (again.code, states(shell)) == (3, {"done": 3, "failed": 1}), "judged again, by the same word"
    shell.write("small.yaml", kites("mark"))
    assert shell.falbatch("run", "small.yaml").code == 3, "nothing is done again by itself"
    taken = shell.falbatch("retry", "small.yaml", "--missing-files", "--json")
    assert taken.code == 0
    assert taken.objects()[-1]["flagged"] == [{"flags": ["black", "nsfw"], "count": 1, "jobs": ["kite-1"]}]
    assert not [name for name in pictures(shell) if "rejected" in name], "a result that is taken has the job's name"
    assert len(pictures(shell)) == 8
    assert shell.submits() == 4


def test_retry_without_rerolls_sends_the_manifests_own_input_again(shell: Shell) -> None:
    run(shell, kites("fail"), NSFW, code=3)
    assert shell.falbatch("retry", "small.yaml", "--type", "flagged").code == 0
    assert sorted(seed for _, seed in executions(shell)) == [0, 1, 1, 2, 3]
    job = export(shell)["kite-1"]
    assert [file["path"] for file in job["files"]] == ["kite-1-1.png", "kite-1-2.png"]
    assert [(one["seed"], one["flags"]) for one in job["lineage"]] == [(1, ["black", "nsfw"]), (1, [])]


def test_a_reroll_draws_another_seed_and_its_lineage_is_the_bill(shell: Shell) -> None:
    report = run(shell, kites("reroll"), NSFW, BLACK)
    assert (report["states"]["done"], report["run"]["rerolls"], report["executions"]) == (4, 2, 6)
    assert report["flagged"] == []
    billed = executions(shell)
    for name, job in export(shell).items():
        seed = job["input"]["seed"]
        if name in {"kite-0", "kite-3"}:
            assert job["lineage"] == []
            assert billed.pop((job["request_id"], seed)) == 1
            continue
        first, second = job["lineage"]
        drawn = seed_of(JobKey(bytes.fromhex(job["key"])), 1)
        assert (first["seed"], second["seed"], second["request_id"]) == (seed, drawn, job["request_id"])
        assert (first["flags"], second["flags"]) == (["black", "nsfw"] if name == "kite-1" else ["black"], [])
        assert first["files"] == [f"{name}-1-rejected-1.png", f"{name}-2-rejected-1.png"]
        assert all(is_all_black(shell, path) for path in first["files"])
        assert [file["path"] for file in job["files"]] == [f"{name}-1.png", f"{name}-2.png"]
        assert not any(is_all_black(shell, file["path"]) for file in job["files"])
        assert job["result"]["seed"] == drawn
        for one in (first, second):
            assert billed.pop((one["request_id"], one["seed"])) == 1
    assert not billed, "fal has run nothing that is not on record"
    assert "2 flagged results rolled again" not in shell.falbatch("run", "small.yaml").out
    assert shell.submits() == 6


def test_without_a_seed_in_the_input_the_model_draws_and_the_lineage_tells_what(shell: Shell) -> None:
    text = kites("reroll", jobs=1).replace('  seed: "{{ seed }}"\n', "")
    run(shell, text, {"on": "submit", "do": "nsfw", "times": 1})
    ledger = shell.sandbox.ledger()["executions"]
    assert [one["input"] for one in ledger] == [ledger[0]["input"]] * 2
    (job,) = export(shell).values()
    first, second = job["lineage"]
    assert isinstance(first["seed"], int)
    assert first["seed"] != second["seed"] == job["result"]["seed"]


def test_rerolls_end_with_the_attempts_and_retry_goes_on_with_the_next_seeds(shell: Shell) -> None:
    text = kites("reroll", jobs=2).replace("retry: {", "retry: {attempts: 3, ")
    always = {"on": "submit", "do": "nsfw"}
    report = run(shell, text, always, code=3)
    assert [(group["error_type"], group["count"]) for group in report["failures"]] == [("flagged", 2)]
    assert "retry.attempts is used up" in report["failures"][0]["example"]
    assert report["executions"] == shell.sandbox.ledger()["count"] == 6
    assert shell.falbatch("run", "small.yaml").code == 3
    assert shell.submits() == 6
    with faults(shell, {**always, "times": 2}):
        assert shell.falbatch("retry", "small.yaml").code == 0
    for name, job in export(shell).items():
        key = JobKey(bytes.fromhex(job["key"]))
        seeds = [one["seed"] for one in job["lineage"]]
        assert seeds == [int(name[-1]), *(seed_of(key, roll) for roll in range(1, len(seeds)))]
        assert len(seeds) >= 4
    assert max(executions(shell).values()) == 1
    assert max(Counter(seed for _, seed in executions(shell)).values()) == 1, "no seed was paid for twice"


def test_where_what_is_seen_decides_every_job_is_clean_or_says_so(shell: Shell) -> None:
    """fal's checker goes by what a picture shows: the same input fares the same each time, another seed may not."""
    text = kites("reroll", jobs=20, more="budget: {unit_price: 0.003, max_cost: 1}")
    rule = {"on": "submit", "do": "nsfw", "p": 0.4, "by": "input"}
    shell.write("small.yaml", text.replace("cap_s: 0.05", "cap_s: 0.05, budget: 1"))
    with faults(shell, rule):
        ran = shell.falbatch("run", "small.yaml", "--json")
        report = ran.objects()[-1]
        assert report["run"]["rerolls"] > 3
        assert report["states"]["done"] + report["states"]["failed"] == 20
        assert {group["error_type"] for group in report["failures"]} <= {"flagged"}
        assert all(not job["flags"] for job in export(shell, "--state", "done").values())
        shell.falbatch("retry", "small.yaml")
    ledger = shell.sandbox.ledger()
    with closing(sqlite3.connect(shell.folder / "out" / "falbatch.db")) as connection:
        known = {request_id for (request_id,) in connection.execute("SELECT request_id FROM requests")}
    assert {one["request_id"] for one in ledger["executions"]} == known
    (status,) = shell.falbatch("status", "small.yaml", "--json").objects()
    assert status["spent"] == pytest.approx(ledger["total_cost"])


AS_IT_IS = ("kite-0-1.png", "kite-0-2.png")


def is_taken_as_it_is(shell: Shell, *words: str, submits: int) -> None:
    """With `mark` the first result of the only job is taken, with the files that are on disk."""
    shell.write("small.yaml", kites("mark", jobs=1))
    with faults(shell, LOST_FILES):
        ran = shell.falbatch(*words)
    assert ran.code == 0, ran.out + ran.err
    assert (states(shell), shell.submits()) == ({"done": 1}, submits)
    (job,) = export(shell).values()
    assert (job["flags"], job["result"]["seed"]) == (["black", "nsfw"], 0)
    assert tuple(file["path"] for file in job["files"]) == AS_IT_IS
    assert set(AS_IT_IS) <= set(pictures(shell))
    (group,) = shell.falbatch("status", "small.yaml", "--json").objects()[0]["flagged"]
    assert group["jobs"] == ["kite-0"]
    assert shell.falbatch("run", "small.yaml").code == 0
    assert shell.submits() == submits


TAKE = ("retry", "small.yaml", "--missing-files")
FIRST = {"on": "submit", "do": "nsfw", "nth": 1}


@pytest.mark.parametrize(
    ("later", "error_type"),
    [({"on": "submit", "do": "status:422", "nth": 2}, ""), ({"on": "submit", "do": "empty", "nth": 2}, "empty_result")],
)
def test_when_a_reroll_comes_to_nothing_the_earlier_result_is_still_to_be_had(
    shell: Shell, later: dict[str, Any], error_type: str
) -> None:
    report = run(shell, kites("reroll", jobs=1), FIRST, later, code=3)
    assert error_type in report["failures"][0]["error_type"]
    (job,) = export(shell, "--state", "failed").values()
    assert [file["path"] for file in job["files"]] in ([], ["kite-0-rejected-2.json"])
    assert shell.falbatch(*TAKE).code == 3, "not by a manifest that does not want it"
    is_taken_as_it_is(shell, *TAKE, submits=2)


def test_when_the_users_own_retry_comes_to_nothing_the_earlier_result_is_still_to_be_had(shell: Shell) -> None:
    run(shell, kites("fail", jobs=1), FIRST, code=3)
    with faults(shell, {"on": "submit", "do": "status:422"}):
        assert shell.falbatch("retry", "small.yaml").code == 3
    is_taken_as_it_is(shell, *TAKE, submits=2)


@pytest.mark.parametrize("words", [("run", "small.yaml"), TAKE])
def test_a_reroll_that_waits_is_not_made_once_the_manifest_takes_what_is_there(
    shell: Shell, words: tuple[str, ...]
) -> None:
    text = kites("reroll", jobs=1, more="budget: {max_cost: 0.007, unit_price: 0.003}")
    report = run(shell, text, FIRST, code=7)
    assert (report["states"]["planned"], report["executions"]) == (1, 1)
    is_taken_as_it_is(shell, *words, submits=1)


def test_a_money_limit_bounds_rerolls_too(shell: Shell) -> None:
    money = "budget: {max_cost: 0.015, unit_price: 0.003}"
    report = run(shell, kites("reroll", jobs=1, more=money), {"on": "submit", "do": "nsfw"}, code=7)
    assert (report["executions"], report["states"]["planned"]) == (2, 1)
    assert report["spent"] == pytest.approx(0.012)
    assert shell.falbatch("run", "small.yaml", "--max-cost", "1").code == 0
    job = export(shell)["kite-0"]
    key = JobKey(bytes.fromhex(job["key"]))
    assert [one["seed"] for one in job["lineage"]] == [0, seed_of(key, 1), seed_of(key, 2)]


def test_a_reroll_whose_answer_is_lost_is_found_by_what_was_really_sent(shell: Shell) -> None:
    lost = {"on": "submit", "do": "drop_after", "nth": 2}
    report = run(shell, kites("reroll", jobs=1), {**NSFW, "seeds": [0]}, lost)
    assert (report["run"]["found"], report["states"]["done"]) == (1, 1)
    (job,) = export(shell).values()
    assert executions(shell) == Counter((one["request_id"], one["seed"]) for one in job["lineage"])
    assert shell.submits() == 2


def test_a_lost_reroll_is_looked_for_by_a_later_run_and_never_sent_again_by_itself(shell: Shell) -> None:
    lost = {"on": "submit", "do": "drop_after", "nth": 2}
    down = {"on": "platform", "do": "status:503"}
    text = kites("reroll", jobs=1)
    report = run(shell, text, {**NSFW, "seeds": [0]}, lost, down, code=3, words=AT_ONCE)
    assert report["states"]["unknown"] == 1
    assert shell.submits() == 2
    ran = shell.falbatch("reconcile", "out", "--json")
    assert (ran.code, shell.submits()) == (0, 2)
    assert max(executions(shell).values()) == 1


def test_reconcile_rolls_nothing_and_the_next_run_does(shell: Shell) -> None:
    """What it brings home is flagged: the attempt is granted, and made by a run that submits."""
    lost = {"on": "submit", "do": "drop_after", "nth": 1}
    down = {"on": "platform", "do": "status:503"}
    run(shell, kites("reroll", jobs=1), {**NSFW, "seeds": [0]}, lost, down, code=3, words=AT_ONCE)
    shell.falbatch("reconcile", "out")
    assert (states(shell), shell.submits()) == ({"planned": 1}, 1)
    assert shell.falbatch("run", "small.yaml").code == 0
    assert (states(shell), shell.submits()) == ({"done": 1}, 2)


def test_a_reroll_outside_of_the_canary_is_left_for_later(shell: Shell) -> None:
    shell.write("small.yaml", kites("reroll", jobs=6))
    with faults(shell, {"on": "submit", "do": "nsfw", "seeds": [0, 1, 2, 3]}, LOST_FILES):
        shell.falbatch("run", "small.yaml", "--limit", "4")
    assert (states(shell), shell.submits()) == ({"completed": 4}, 4)
    assert shell.falbatch("run", "small.yaml", "--canary", "1").code == 0
    assert shell.submits() == 5, "the canary and nothing else"
    assert states(shell) == {"done": 1, "planned": 5}
    assert shell.falbatch("run", "small.yaml").code == 0
    assert (states(shell), shell.submits()) == ({"done": 6}, 10)


@pytest.mark.parametrize("words", [(), ("--ask-above", "1000")])
@pytest.mark.parametrize(
    ("rule", "left"),
    [({"on": "status", "do": "status:403"}, "submitted"), ({"on": "submit", "do": "drop_after"}, "unknown")],
)
def test_rerolls_of_what_comes_home_are_asked_about(
    shell: Shell, words: tuple[str, ...], rule: dict[str, Any], left: str
) -> None:
    shell.write("small.yaml", kites("reroll", jobs=2))
    with faults(shell, rule, {"on": "platform", "do": "status:503"}):
        shell.falbatch("run", "small.yaml", "--yes", *AT_ONCE, **COSTS)
    assert states(shell) == {left: 2}
    asked = shell.falbatch("run", "small.yaml", *words, **COSTS)
    assert (asked.code, states(shell)) == (2, {left: 2})
    assert "up to 2 flagged results may be run again" in asked.err
    shell.write("small.yaml", kites("mark", jobs=2))
    shell.falbatch("run", "small.yaml", *words, **COSTS)
    assert left not in states(shell), "nothing can be run again, and nobody was asked"
    assert shell.submits() == 2


def test_with_rerolls_the_threshold_is_for_all_attempts(shell: Shell) -> None:
    text = kites("reroll", jobs=2, more="budget: {unit_price: 0.003}").replace("retry: {", "retry: {attempts: 3, ")
    shell.write("small.yaml", text)
    assert shell.falbatch("run", "small.yaml", "--ask-above", "0.035", **COSTS).code == 2
    assert shell.submits() == 0
    shell.falbatch("run", "small.yaml", "--ask-above", "0.036", **COSTS)
    assert shell.submits() == 2


@pytest.mark.parametrize("mode", ["run", "stream", "realtime"])
def test_direct_calls_are_judged_and_rolled_again_alike(shell: Shell, mode: str) -> None:
    text = kites("reroll").replace("matrix:", f"mode: {mode}\nmatrix:")
    rules = [{**NSFW, "on": mode}, {**BLACK, "on": mode}, {"on": mode, "do": "error_in_result", "seeds": [3]}]
    report = run(shell, text, *rules, code=3)
    assert [group["error_type"] for group in report["failures"]] == ["error_in_result"]
    assert (report["states"]["done"], report["executions"]) == (3, 6)
    jobs = export(shell)
    lines = [[one["seed"] for one in jobs[name]["lineage"]] for name in ("kite-1", "kite-2")]
    keys = [JobKey(bytes.fromhex(jobs[name]["key"])) for name in ("kite-1", "kite-2")]
    assert lines == [[1, seed_of(keys[0], 1)], [2, seed_of(keys[1], 1)]]
    ledger = [one["input"]["seed"] for one in shell.sandbox.ledger()["executions"]]
    assert sorted(ledger) == sorted([0, 3, *lines[0], *lines[1]])


def test_a_direct_reroll_whose_answer_is_lost_comes_home_from_the_list(shell: Shell) -> None:
    text = kites("reroll", jobs=1).replace("matrix:", "mode: run\nmatrix:")
    flag, lost = {"on": "run", "do": "nsfw", "seeds": [0]}, {"on": "run", "do": "drop_after", "nth": 2}
    report = run(shell, text, flag, lost)
    assert (report["states"]["done"], report["run"]["found"]) == (1, 1)
    assert len(shell.sandbox.ledger()["executions"]) == 2


@pytest.mark.parametrize("flagged", ["keep", "reroll"])
def test_a_result_that_lacks_something_is_told_and_its_files_are_kept(shell: Shell, flagged: str) -> None:
    report = run(shell, kites(flagged), *LACKING, code=3)
    assert sorted(group["error_type"] for group in report["failures"]) == [
        "empty_result",
        "error_in_result",
        "too_few_files",
    ]
    assert (report["states"]["done"], report["executions"]) == (1, 4)
    told = shell.falbatch("status", "small.yaml").out
    assert "1 of 2 files came (num_images: 2)" in told
    assert "ran out of memory" in told
    kept = ["kite-1-rejected-1.png", "kite-2-1-rejected-1.png", "kite-2-2-rejected-1.png"]
    assert [name for name in pictures(shell) if "rejected" in name] == kept
    jobs = export(shell)
    assert [file["path"] for file in jobs["kite-1"]["files"]] == kept[:1]

    (shell.folder / "out" / kept[0]).unlink()
    again = shell.falbatch("retry", "small.yaml", "--missing-files")
    assert (again.code, states(shell)) == (3, {"done": 1, "failed": 3})
    assert kept[0] in pictures(shell), "fetched again at no charge"
    assert shell.submits() == 4
    assert shell.falbatch("retry", "small.yaml").code == 0
    assert (states(shell), shell.submits()) == ({"done": 4}, 7)
    assert {"kite-1-1.png", "kite-1-2.png", "kite-2-1.png", "kite-3-2.png"} <= set(pictures(shell))


def test_what_lacks_something_is_taken_at_no_charge_where_the_user_says_so(shell: Shell) -> None:
    report = run(shell, kites(), *LACKING, code=3)
    assert all("output.lacking" in group["advice"] for group in report["failures"])
    assert shell.falbatch("retry", "small.yaml", "--missing-files").code == 3, "judged again, by the same word"
    shell.write("small.yaml", kites().replace("output: {", "output: {lacking: keep, "))
    assert shell.falbatch("run", "small.yaml").code == 3, "nothing is done again by itself"
    assert shell.falbatch("retry", "small.yaml", "--missing-files").code == 0
    assert (states(shell), shell.submits()) == ({"done": 4}, 4)


def test_what_lacks_something_is_done_with_keep(shell: Shell) -> None:
    report = run(shell, kites().replace("output: {", "output: {lacking: keep, "), *LACKING)
    assert (report["states"]["done"], shell.submits()) == (4, 4)
    assert not [name for name in pictures(shell) if "rejected" in name]


def test_a_text_s_error_beside_200_is_no_success(shell: Shell) -> None:
    given = 'input: {model: openai/gpt-4o-mini, prompt: "why?"}'
    shell.write("small.yaml", f"endpoint: fal-ai/any-llm\n{given}\noutput: {{dir: out, name: answer}}\nname: small\n")
    with faults(shell, {"on": "submit", "do": "error_in_result"}):
        ran = shell.falbatch("run", "small.yaml", "--json")
    assert ran.code == 3
    assert ran.objects()[-1]["failures"][0]["error_type"] == "error_in_result"
    kept = json.loads((shell.folder / "out" / "answer-rejected-1.json").read_bytes())
    assert kept["error"]
    assert shell.falbatch("retry", "small.yaml").code == 0
    assert json.loads((shell.folder / "out" / "answer.json").read_bytes())["error"] is None


def test_map_tells_flags_and_rolls_again(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in shell.environment().items():
        if name.startswith("FAL"):
            monkeypatch.setenv(name, value)
    inputs = [{"prompt": "a kite", "image_size": {"width": 64, "height": 64}, "seed": seed} for seed in range(3)]

    async def outcomes(**more: Any) -> list[falbatch.Outcome]:
        state, output = shell.folder / f"{len(more)}.db", shell.folder / f"o{len(more)}"
        found = falbatch.map("fal-ai/flux/schnell", inputs, state=state, output=output, **more)
        return sorted([one async for one in found], key=lambda one: one.index)

    with faults(shell, NSFW):
        marked = anyio.run(outcomes)
        rolled = anyio.run(lambda: outcomes(limits=falbatch.Limits(flagged=falbatch.FlagPolicy.REROLL)))
    assert [one.flags for one in marked] == [(), ("black", "nsfw"), ()]
    assert [one.flags for one in rolled] == [(), (), ()]
    assert all(one.is_ok for one in marked + rolled)
    assert len(shell.sandbox.ledger()["executions"]) == 7
