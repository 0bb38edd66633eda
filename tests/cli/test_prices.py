"""What a batch will cost is said before it does, and is what fal then charges."""

from __future__ import annotations

import json
import os
import pty
import random
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.cli.conftest import MANIFEST, SECONDS
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Ran, Shell

ELSEWHERE: Final = {"FALBATCH_RUN_URL": "https://run.fal.example"}
"""A fal that is not all on this machine, and so may cost."""

ASKS: Final = """\
version: 1
name: small
endpoint: fal-ai/any-llm
matrix: {n: {range: [0, 4]}}
input: {model: a/b, prompt: "kite {{ n }}"}
output: {dir: out}
"""
"""Four requests, $0.001 each, without files."""

MIXED: Final = """\
version: 1
name: mixed
endpoint: "{{ row.endpoint }}"
rows: jobs.jsonl
input:
  prompt: "{{ row.prompt | default(omit) }}"
  model: "{{ row.model | default(omit) }}"
  image_size: "{{ row.image_size | default(omit) }}"
  num_images: "{{ row.num_images | default(omit) }}"
  duration: "{{ row.duration | default(omit) }}"
  resolution: "{{ row.resolution | default(omit) }}"
  generate_audio: "{{ row.generate_audio | default(omit) }}"
  audio_url: "{{ row.audio_url | default(omit) }}"
  images_data_url: "{{ row.images_data_url | default(omit) }}"
  steps: "{{ row.steps | default(omit) }}"
output: {dir: out}
limits: {in_flight: 256, submits_per_s: 2000, polls_per_s: 2000}
"""

SMALL: Final = {"width": 64, "height": 64}


def mixed(count: int) -> Iterator[dict[str, Any]]:
    """Jobs of all kinds of units that inputs tell. Pictures are small and videos few: they take time to make."""
    chance = random.Random(6)
    sizes: list[Any] = [SMALL] * 40 + ["square", {"width": 64, "height": 128}, {"width": 2200, "height": 500}]
    for number in range(count):
        prompt = f"kite {number} " + "on the wind " * chance.randrange(6)
        kind = number % 10
        if number % 250 == 99:
            yield {"endpoint": "fal-ai/veo3.1", "prompt": prompt, "duration": chance.choice(["4s", "6s"])}
        elif number % 100 == 98:
            yield {"endpoint": "fal-ai/flux/dev", "prompt": prompt}
        elif number % 250 == 97:
            yield {"endpoint": "fal-ai/kling-video/v2.6/pro/text-to-video", "prompt": prompt}
        elif number % 100 == 96:
            steps = {"steps": chance.randrange(100, 900)} if number % 200 == 96 else {}
            yield {"endpoint": "fal-ai/flux-lora-fast-training", "images_data_url": f"https://a.b/{number}.zip"} | steps
        elif kind < 3:
            many = {"num_images": chance.randrange(1, 4)} if number % 3 else {}
            yield {"endpoint": "fal-ai/flux/schnell", "prompt": prompt, "image_size": chance.choice(sizes)} | many
        elif kind < 4:
            many = {"num_images": 2} if number % 3 else {}
            yield {"endpoint": "fal-ai/fast-sdxl", "prompt": prompt, "image_size": SMALL} | many
        elif kind < 5:
            yield {"endpoint": "fal-ai/kokoro", "prompt": prompt}
        else:
            yield {"endpoint": "openrouter/router", "prompt": prompt, "model": "a/b"}


def write_mixed(shell: Shell, jobs: Iterator[dict[str, Any]], extra: str = "") -> None:
    shell.write("mixed.yaml", MIXED + extra)
    shell.write("jobs.jsonl", "".join(json.dumps(job) + "\n" for job in jobs))


def plan_of(shell: Shell, name: str = "mixed.yaml", *words: str) -> dict[str, Any]:
    ran = shell.falbatch("plan", name, "--json", *words)
    assert ran.code == 0, ran.err
    plan: dict[str, Any] = ran.objects()[-1]
    return plan


def billed(shell: Shell) -> float:
    total: float = shell.sandbox.ledger()["total_cost"]
    return total


def test_a_thousand_mixed_jobs_cost_what_their_plan_says_and_half_of_it_is_never_exceeded(shell: Shell) -> None:
    write_mixed(shell, mixed(1000))
    cost = plan_of(shell)["cost"]
    assert (len(cost["endpoints"]), sum(line["jobs"] for line in cost["endpoints"])) == (8, 1000)
    assert {line["certainty"] for line in cost["endpoints"]} == {"exact"}
    half = round(cost["left"] / 2, 2)

    most = 0.0
    is_over = threading.Event()

    def watch() -> None:
        nonlocal most
        while not is_over.is_set():
            most = max(most, billed(shell))
            time.sleep(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        first = shell.falbatch("run", "mixed.yaml", "--json", "--max-cost", str(half))
    finally:
        is_over.set()
        watcher.join()
    assert first.code == 7, first.err
    assert max(most, billed(shell)) <= half
    assert billed(shell) > 0.8 * half
    assert first.objects()[-1]["spent"] == pytest.approx(billed(shell))

    rest = plan_of(shell)["cost"]
    assert rest["spent"] == pytest.approx(billed(shell))
    assert rest["whole"] == pytest.approx(cost["whole"], rel=0.01)
    second = shell.falbatch("run", "mixed.yaml", "--json")
    assert second.code == 0, second.err
    assert shell.sandbox.ledger()["count"] == 1000
    assert billed(shell) == pytest.approx(cost["left"], rel=0.01)
    assert plan_of(shell)["cost"]["left"] == 0


def unlike(count: int) -> Iterator[dict[str, Any]]:
    """Jobs whose units only bills tell."""
    for number in range(count):
        if number % 8 == 0:
            silent = {"duration": "4s", "generate_audio": False}
            yield {"endpoint": "fal-ai/veo3.1", "prompt": f"kite {number}"} | silent
        elif number % 2:
            yield {"endpoint": "fal-ai/whisper", "audio_url": f"https://a.b/{number}.wav"}
        else:
            yield {"endpoint": "fal-ai/wizper", "audio_url": f"https://a.b/{number}.wav"}


def test_what_inputs_do_not_tell_is_learned_from_the_first_bills(shell: Shell) -> None:
    write_mixed(shell, unlike(160))
    before = {line["endpoint"]: line for line in plan_of(shell)["cost"]["endpoints"]}
    assert [before[name]["certainty"] for name in sorted(before)] == ["assumed", "historical", "historical"]
    assert "generate_audio=False" in before["fal-ai/veo3.1"]["words"]
    assert before["fal-ai/veo3.1"]["cost"] == pytest.approx(20 * 4 * 0.4)

    assert shell.falbatch("run", "mixed.yaml", "--sample", "60").code == 0
    cost = plan_of(shell)["cost"]
    after = {line["endpoint"]: line for line in cost["endpoints"]}
    assert {line["certainty"] for line in after.values()} == {"learned"}
    assert after["fal-ai/whisper"]["low"] < after["fal-ai/whisper"]["cost"] < after["fal-ai/whisper"]["high"]
    assert shell.falbatch("run", "mixed.yaml").code == 0
    assert billed(shell) == pytest.approx(cost["whole"], rel=0.01)
    by_endpoint: dict[str, float] = {}
    for execution in shell.sandbox.ledger()["executions"]:
        by_endpoint[execution["endpoint"]] = by_endpoint.get(execution["endpoint"], 0.0) + execution["cost"]
    for line in after.values():
        assert by_endpoint[line["endpoint"]] >= line["low"]


def test_half_of_what_only_bills_tell_is_never_exceeded_either(shell: Shell) -> None:
    write_mixed(shell, unlike(240))
    assert shell.falbatch("run", "mixed.yaml", "--sample", "30").code == 0
    half = round(plan_of(shell)["cost"]["whole"] / 2, 4)
    ran = shell.falbatch("run", "mixed.yaml", "--json", "--max-cost", str(half))
    assert ran.code == 7
    assert 0.8 * half < billed(shell) <= half


def test_a_plan_is_a_table_of_costs(shell: Shell) -> None:
    write_mixed(shell, iter([{"endpoint": "fal-ai/flux/dev", "prompt": "a"}] * 3))
    out = shell.falbatch("plan", "mixed.yaml").out
    assert "fal-ai/flux/dev          3 jobs  $0.075 = 3 × $0.025 per megapixel\n" in out
    assert "spent already: $0.00; left: $0.075; the whole batch: $0.075\n" in out
    assert plan_of(shell, "mixed.yaml", "--limit", "1")["cost"]["left"] == 0.025


def test_a_run_says_its_cost_first(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    ran = shell.falbatch("run", "small.yaml")
    assert "cost of what is to be submitted:" in ran.err
    assert "left: $0.012;" in ran.err
    assert shell.falbatch("run", "small.yaml", "--json").objects()[-1]["spent"] == 0.012


def test_how_far_a_limit_reaches_is_said_before(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST + "budget: {max_cost: 0.007}\n")
    assert "  the limit of $0.007 will stop it after about 2 of 4 jobs\n" in shell.falbatch("plan", "small.yaml").out
    assert plan_of(shell, "small.yaml")["limit"] == {"max_cost": 0.007, "jobs": 2}
    ran = shell.falbatch("run", "small.yaml", "--max-cost", "0.01")
    assert "the limit of $0.01 will stop it after about 3 of 4 jobs\n" in ran.err
    assert (ran.code, shell.submits()) == (7, 3)
    assert "will stop it" not in shell.falbatch("run", "small.yaml", "--max-cost", "1").err


def test_a_canary_asks_by_what_its_dearest_jobs_may_cost(shell: Shell) -> None:
    many = MANIFEST.replace('kite"', 'kite", num_images: "{{ 4 if seed == 3 else 1 }}"')
    shell.write("small.yaml", many)
    ran = asked(shell, "--canary", "1", "--ask-above", "0.006")
    assert ran.code == 2
    assert "billed for about $0.00525, at most $0.012" in ran.err
    assert shell.submits() == 0


def test_the_users_own_price_wins_and_says_so(shell: Shell) -> None:
    assert shell.falbatch("price", "fal-ai/flux/schnell").code == 0
    shell.write("small.yaml", MANIFEST + "budget: {unit_price: 0.5}\n")
    out = shell.falbatch("plan", "small.yaml").out
    assert "4 jobs  $2.00 = 4 × $0.50 per megapixel, your price" in out


def test_without_a_key_a_plan_shows_what_was_heard_before(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    ran = shell.falbatch("plan", "small.yaml", FAL_KEY=None)
    assert ran.code == 0
    assert "4 jobs  not known" in ran.out
    assert "prices: none for fal-ai/flux/schnell: fal names prices only with a key; FAL_KEY" in ran.out
    assert "budget.unit_price" in ran.out
    assert plan_of(shell, "small.yaml")["cost"]["left"] == 0.012
    for words in ((), ("--offline",)):
        out = shell.falbatch("plan", "small.yaml", *words, FAL_KEY=None).out
        assert "$0.012 = 4 × $0.003 per megapixel\n" in out
        assert "prices: as heard with a key, of which there is none now; accounts may have prices of their own\n" in out


def test_another_keys_prices_are_not_taken_for_ones_own(shell: Shell) -> None:
    """fal's prices may hold an account's discount."""
    shell.write("small.yaml", MANIFEST)
    assert plan_of(shell, "small.yaml")["cost"]["left"] == 0.012
    for path in shell.folder.rglob("price/*.json"):
        kept = json.loads(path.read_bytes())
        path.write_text(json.dumps(kept | {"value": {"nano_per_unit": 1, "unit": "megapixel"}}))
        assert "secret-of-shell" not in path.name + path.read_text()

    def left(key: str | None, *words: str) -> float | None:
        ran = shell.falbatch("plan", "small.yaml", "--json", *words, FAL_KEY=key)
        cost: dict[str, Any] = ran.objects()[-1]["cost"]
        return cost["left"] if cost["is_known"] else None

    assert left("shell:another-secret-of-the-same-key", "--offline") == 4e-9
    assert left("other:secret", "--offline") is None
    assert left("other:secret") == 0.012
    assert left("shell:secret-of-shell") == 4e-9
    assert left(None) == 0.012, "what was heard last"


def test_an_old_price_is_shown_with_its_day(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    assert plan_of(shell, "small.yaml")["cost"]["trouble"] == ""
    for kept in shell.folder.rglob("price/*.json"):
        value = json.loads(kept.read_bytes())
        kept.write_text(json.dumps(value | {"at": 1_700_000_000.0}))
    shell.sandbox.add_faults([{"on": "platform", "do": "status:500"}])
    out = shell.falbatch("plan", "small.yaml").out
    shell.sandbox.clear_faults()
    assert "$0.003 per megapixel, a price of 2023-11-1" in out
    assert "prices: as heard before: " in out
    assert "500" in out
    assert "a price of" not in shell.falbatch("plan", "small.yaml").out


@pytest.mark.parametrize("garbage", ["", "[]", "7", '{"at": "soon"}', '{"nano_per_unit": -1}'])
def test_garbage_in_the_cache_is_no_price(garbage: str, shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    assert plan_of(shell, "small.yaml")["cost"]["left"] == 0.012
    for path in [*shell.folder.rglob("price/*.json"), *shell.folder.rglob("estimate/*.json")]:
        kept = json.loads(path.read_bytes())
        path.write_text(json.dumps(kept | {"value": garbage and json.loads(garbage)}))
    assert plan_of(shell, "small.yaml", "--offline")["cost"]["is_known"] is False
    assert plan_of(shell, "small.yaml")["cost"]["left"] == 0.012


def asked(shell: Shell, *words: str) -> Ran:
    """`falbatch run` against a fal that may cost."""
    return shell.falbatch("run", "small.yaml", *words, **ELSEWHERE)


def test_what_costs_more_than_the_threshold_wants_a_yes(shell: Shell) -> None:
    shell.write("small.yaml", ASKS)
    for words in ((), ("--ask-above", "0.003")):
        ran = asked(shell, *words)
        assert ran.code == 2
        assert "4 jobs would be submitted to fal and billed for $0.004" in ran.err
        assert "--ask-above" in ran.err
    assert shell.submits() == 0
    assert asked(shell, "--ask-above", "0.004").code == 0
    assert shell.submits() == 4


def test_the_manifest_names_the_threshold_and_the_flag_wins(shell: Shell) -> None:
    shell.write("small.yaml", ASKS + "budget: {ask_above: 1.00}\n")
    assert asked(shell, "--ask-above", "0").code == 2
    assert shell.submits() == 0
    assert asked(shell).code == 0
    assert shell.submits() == 4


def test_a_cost_that_is_not_known_always_wants_a_yes(shell: Shell) -> None:
    shell.write("small.yaml", ASKS)
    shell.sandbox.add_faults([{"on": "platform", "do": "status:500"}])
    ran = asked(shell, "--ask-above", "1000")
    shell.sandbox.clear_faults()
    assert ran.code == 2
    assert "billed for a cost that is not known" in ran.err
    assert shell.submits() == 0


def test_what_may_be_charged_twice_always_wants_a_yes(shell: Shell) -> None:
    shell.write("small.yaml", ASKS)
    shell.sandbox.add_faults([{"on": "submit", "do": "drop_before", "nth": 2}])
    assert asked(shell, "--yes", "--reconcile-wait", "0").code == 3
    shell.sandbox.clear_faults()
    again = ("--resubmit-unknown", "--reconcile-wait", "0", "--ask-above", "1000")
    assert asked(shell, *again).code == 2
    assert shell.submits() == 4
    assert asked(shell, *again, "--yes").code == 0
    assert shell.submits() == 5


@pytest.mark.parametrize(("answer", "submits"), [("n", 0), ("y", 4)])
def test_at_a_terminal_the_cost_is_in_the_question(answer: str, submits: int, shell: Shell) -> None:
    shell.write("small.yaml", ASKS)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "falbatch", "run", "small.yaml"]
    with subprocess.Popen(
        command, cwd=shell.folder, env=shell.environment(**ELSEWHERE), stdin=theirs, stderr=subprocess.PIPE, text=True
    ) as run:
        os.close(theirs)
        os.write(ours, f"{answer}\n".encode())
        _, said = run.communicate(timeout=SECONDS)
    os.close(ours)
    assert "Submit 4 jobs to fal for $0.004? They will be billed. [y/N]" in said
    assert said.count("cost of what is to be submitted") == 1
    assert shell.submits() == submits


@pytest.mark.parametrize("threshold", ["lots", "-1", "true", "[1]"])
def test_a_threshold_that_is_none_is_refused(threshold: str, shell: Shell) -> None:
    shell.write("small.yaml", ASKS + f"budget: {{ask_above: {threshold}}}\n")
    ran = shell.falbatch("plan", "small.yaml")
    assert ran.code == 2
    assert "budget.ask_above must be US dollars" in ran.err


def test_the_built_in_sandbox_names_its_prices_and_nothing_of_it_is_kept(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    ran = shell.falbatch("plan", "small.yaml", "--sandbox", "--json", FALBATCH_ORIGIN=None, FAL_KEY=None)
    assert ran.objects()[-1]["cost"]["left"] == 0.012
    assert list(shell.folder.rglob("price/*.json")) == []


def test_a_plan_beside_another_fals_results_does_not_take_its_prices(shell: Shell) -> None:
    """What a rehearsal in the built-in sandbox was billed says nothing of fal's prices."""
    shell.write("small.yaml", MANIFEST)
    assert shell.falbatch("run", "small.yaml", "--sandbox", "--limit", "1").code == 0
    assert plan_of(shell, "small.yaml", "--offline")["cost"]["is_known"] is False


def test_a_file_input_has_a_price_before_it_is_uploaded(shell: Shell) -> None:
    shell.write("a.png", b"\x89PNG\r\n\x1a\n")
    shell.write(
        "small.yaml",
        "version: 1\nendpoint: fal-ai/flux/dev/image-to-image\ninput: {prompt: a, image_url: {file: a.png}}\n",
    )
    assert plan_of(shell, "small.yaml")["cost"]["left"] == 0.03


def test_a_hundred_endpoints_of_which_one_is_unknown_have_their_prices(shell: Shell) -> None:
    rows = [{"endpoint": f"fal-ai/picture-{number}", "prompt": "a"} for number in range(60)]
    write_mixed(shell, iter([*rows, {"endpoint": "fal-ai/does-not-exist/a", "prompt": "a"}]))
    cost = plan_of(shell)["cost"]
    assert cost["left"] == pytest.approx(0.6)
    assert (cost["is_known"], cost["whole"]) == (False, None)
    assert "none for fal-ai/does-not-exist/a" in cost["trouble"]


def test_prices_are_shown_with_what_a_call_would_cost(shell: Shell) -> None:
    ran = shell.falbatch("price", "fal-ai/flux/dev", "num_images=4", "image_size=square_hd")
    day = time.strftime("%Y-%m-%d")
    assert ran.out.splitlines()[0] == f"fal-ai/flux/dev  $0.025 per megapixel ({day})"
    assert "  this call: $0.10 = 4 × $0.025 per megapixel" in ran.out
    first, second = shell.falbatch("price", "--json", "fal-ai/veo3.1", "fal-ai/whisper").objects()
    assert (first["unit"], first["unit_price"], first["call"]) == ("second", 0.4, None)
    assert (second["unit"], second["unit_price"], second["average_call"]) == ("compute second", 0.00111, 0.00111)
    (line,) = shell.falbatch("price", "fal-ai/veo3.1", "--json", "duration=8s", "generate_audio=false").objects()
    assert (line["call"]["units"], line["call"]["certainty"]) == (8.0, "assumed")
    assert shell.sandbox.ledger()["count"] == 0


def test_a_price_that_was_heard_serves_when_fal_cannot_be_asked(shell: Shell) -> None:
    assert shell.falbatch("price", "fal-ai/flux/dev", FAL_KEY=None).code == 4
    assert shell.falbatch("price", "fal-ai/flux/dev").code == 0
    without_key = shell.falbatch("price", "fal-ai/flux/dev", FAL_KEY=None)
    without_fal = shell.falbatch("price", "fal-ai/flux/dev", FALBATCH_API_URL="http://127.0.0.1:1")
    for ran in (without_key, without_fal):
        assert (ran.code, ran.out.splitlines()[0].startswith("fal-ai/flux/dev  $0.025")) == (0, True)
        assert "this is what fal said before" in ran.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("fal-ai/does-not-exist",), 2, "fal has no endpoint fal-ai/does-not-exist"),
        (("fal-ai/flux/dev", "fal-ai/does-not-exist"), 2, "`falbatch models WORDS`"),
        (("nonsense",), 2, "not an endpoint id"),
        (("seed=1",), 2, "an ENDPOINT is needed"),
        (("fal-ai/flux/dev", "a..b=1"), 2, "is not NAME=VALUE"),
    ],
)
def test_what_has_no_price_is_said(words: tuple[str, ...], code: int, said: str, shell: Shell) -> None:
    ran = shell.falbatch("price", *words)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_fals_history_tells_an_average_call() -> None:
    """A sandbox of its own: its history holds one transcript."""
    with SandboxProcess("--seed", "5", "--speed", "0") as fal:
        env = {
            "FALBATCH_ORIGIN": fal.origin,
            "FAL_KEY": "a:b",
            "PATH": os.environ["PATH"],
            "FALBATCH_CACHE": "/nowhere",
        }

        def run(*words: str) -> str:
            return subprocess.run(
                [sys.executable, "-m", "falbatch", *words], env=env, capture_output=True, text=True, check=True
            ).stdout

        run("call", "fal-ai/whisper", "audio_url=https://a.b/c.wav")
        (execution,) = fal.ledger()["executions"]
        told = json.loads(run("price", "fal-ai/whisper", "--json"))
    assert told["average_call"] == pytest.approx(execution["cost"], abs=1e-6)
