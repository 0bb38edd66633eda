"""A wrong field costs nothing: inputs are checked against the endpoints' own schemas before anything is submitted."""

from __future__ import annotations

import json
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from falbatch.adapters.cache import open_cache
from falbatch.faultpoints import VARIABLE
from tests.core.openapi import document as openapi
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from tests.cli.conftest import Ran, Shell

TWELVE = """\
version: 1
endpoint: fal-ai/flux/dev
rows: rows.csv
input:
  promt: "{{ row.text }}"
  image_size: "{{ row.size }}"
  num_inference_steps: "{{ row.steps }}"
  num_images: 9
  guidance_scale: 0
  output_format: jpg
  seed: 1.5
  enable_safety_checker: "yes"
  acceleration: 5
  sync_mode: {a: b}
output: {dir: out, name: "{{ row.text }}", flaged: keep}
"""
ROWS = """\
text,size,steps
one,square-hd,28
two,square,thirty
three,square,28
"""
SAID = [
    (4, "input.prompt is missing [3 jobs: job 1 (rows.csv:2)", 'is it "promt"?'),
    (5, "input.promt is not in the endpoint's schema", 'did you mean "prompt"?'),
    (6, 'not the text "square-hd" [job 1 (rows.csv:2)]', 'did you mean "square_hd"?'),
    (7, 'a whole number, not the text "28" [3 jobs: job 1', 'write "{{ row.steps | int }}"'),
    (8, "input.num_images must be at most 4, not 9 [3 jobs", "write 4"),
    (9, "input.guidance_scale must be at least 1, not 0", "write 1"),
    (10, 'input.output_format must be one of "jpeg", "png", not the text "jpg"', 'did you mean "jpeg"?'),
    (11, "input.seed must be a whole number, not 1.5", "write 2"),
    (12, 'input.enable_safety_checker must be true or false, not the text "yes"', "write true, without quotes"),
    (13, 'input.acceleration must be one of "none", "regular", "high", not 5', "write one of those"),
    (14, "input.sync_mode must be true or false, not a mapping", "write true or false"),
    (15, 'unknown key "flaged" in output', 'did you mean "flagged"?'),
]
GOOD = """\
version: 1
name: small
endpoint: fal-ai/flux/schnell
matrix: {n: [1, 2]}
input: {prompt: "kite {{ n }}", image_size: {width: 16, height: 16}, num_inference_steps: STEPS}
output: {dir: out}
"""


def refused(shell: Shell, ran: Ran) -> None:
    assert ran.code == 2, ran.err
    assert "Traceback" not in ran.err
    assert shell.submits() == 0
    assert shell.sandbox.ledger()["count"] == 0


@pytest.mark.parametrize("command", ["plan", "run"])
def test_twelve_different_mistakes_are_said_at_once(shell: Shell, command: str) -> None:
    shell.write("m.yaml", TWELVE)
    shell.write("rows.csv", ROWS)
    ran = shell.falbatch(command, "m.yaml")
    refused(shell, ran)
    lines = [line for line in ran.err.splitlines() if line.startswith(("error: ", "warning: "))]
    for line, what, hint in SAID:
        found = [said for said in lines if f"m.yaml:{line}:" in said and what in said]
        assert len(found) == 1, (what, lines)
        assert hint in found[0]
    assert len(lines) == len(SAID)
    assert "11 problems; nothing was submitted" in ran.err
    assert not (shell.folder / "out").exists()


def test_the_mistakes_are_said_in_json(shell: Shell) -> None:
    shell.write("m.yaml", TWELVE)
    shell.write("rows.csv", ROWS)
    ran = shell.falbatch("plan", "m.yaml", "--json")
    refused(shell, ran)
    said = json.loads(ran.err)
    assert len(said["problems"]) == 11
    assert [warning["line"] for warning in said["warnings"]] == [5]
    assert set(said["problems"][0]) == {"file", "line", "column", "what", "hint"}


def test_a_schema_may_be_wrong_and_is_only_advice(shell: Shell) -> None:
    shell.write("small.yaml", GOOD.replace("STEPS", "9999"))
    refused(shell, shell.falbatch("run", "small.yaml"))
    assert shell.falbatch("plan", "small.yaml", "--no-validate").code == 0
    shell.write("small.yaml", GOOD.replace("STEPS", "9999") + "validate: false\n")
    assert shell.falbatch("plan", "small.yaml").code == 0
    shell.write("small.yaml", GOOD.replace("STEPS", "9999") + "validate: {except: [num_inference_steps]}\n")
    assert shell.falbatch("plan", "small.yaml").code == 0
    ran = shell.falbatch("run", "small.yaml")
    assert ran.code == 3  # the sandbox's model keeps to its schema
    assert shell.submits() == 2


def test_warnings_are_said_and_stop_nothing(shell: Shell) -> None:
    shell.write("small.yaml", GOOD.replace("STEPS", "2, sed: 4"))
    planned = shell.falbatch("plan", "small.yaml")
    assert planned.code == 0
    assert "input.sed is not in the endpoint" in planned.out
    (plan,) = [one for one in shell.falbatch("plan", "small.yaml", "--json").objects() if one["event"] == "plan"]
    assert [warning["hint"] for warning in plan["warnings"]] == ['did you mean "seed"?']
    ran = shell.falbatch("run", "small.yaml")
    assert ran.code == 0, ran.err
    assert ran.err.count("input.sed is not") == 1


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("validate: maybe", "validate must be true, false or exceptions"),
        ("validate: {exept: [a]}", 'did you mean "except"?'),
        ("validate: {except: num_images}", "validate.except must be a list of fields"),
        ("validate: {except: [3, '']}", "a field of the input is needed"),
    ],
)
def test_a_wrong_setting_of_the_check_is_said(shell: Shell, text: str, what: str) -> None:
    shell.write("small.yaml", GOOD.replace("STEPS", "2") + text + "\n")
    ran = shell.falbatch("plan", "small.yaml")
    refused(shell, ran)
    assert what in ran.err


def test_mistakes_of_templates_names_and_inputs_come_together(shell: Shell) -> None:
    text = GOOD.replace("STEPS", '"x{{ 1 / (n - 1) }}"').replace("[1, 2]", "[1, 2, 3]")
    shell.write("small.yaml", text.replace("{dir: out}", "{dir: out, name: kite}"))
    ran = shell.falbatch("run", "small.yaml")
    refused(shell, ran)
    for what in ("division by zero (n=1)", "must be a whole number", '2 jobs would write the file name "kite"'):
        assert what in ran.err


def test_only_what_would_be_submitted_is_checked(shell: Shell) -> None:
    shell.write("small.yaml", GOOD.replace("STEPS", "2").replace("[1, 2]", "[1]"))
    assert shell.falbatch("run", "small.yaml").code == 0
    # Done jobs cost nothing more: a schema that has changed since does not stand in the way.
    shell.write(
        "small.yaml",
        GOOD.replace("STEPS", "{{ 2 if n == 1 else 99 }}").replace("{{ 2", '"{{ 2').replace("99 }}", '99 }}"'),
    )
    ran = shell.falbatch("run", "small.yaml")
    assert ran.code == 2
    assert "[job 2 (small.yaml, n=2)]" in ran.err or "[job 2 (n=2)]" in ran.err


def test_a_retry_is_checked_too(shell: Shell) -> None:
    shell.write("small.yaml", GOOD.replace("STEPS", "9999"))
    assert shell.falbatch("run", "small.yaml", "--no-validate").code == 3
    before = shell.submits()
    ran = shell.falbatch("retry", "small.yaml")
    assert ran.code == 2
    assert "must be at most 12, not 9,999" in ran.err.replace("9999", "9,999")
    assert shell.submits() == before


def test_files_are_checked_as_the_urls_that_they_become(shell: Shell) -> None:
    shell.write("photo.png", b"\x89PNG\r\n\x1a\n" + bytes(32))
    text = (
        "endpoint: fal-ai/flux/dev/image-to-image\n"
        "input: {prompt: at night, image_url: {file: photo.png}, strength: {file: photo.png}}\n"
    )
    shell.write("m.yaml", text)
    ran = shell.falbatch("plan", "m.yaml")
    refused(shell, ran)
    assert "input.strength must be a number" in ran.err
    assert "image_url" not in ran.err


def test_deprecated_and_unknown_endpoints_are_named(shell: Shell) -> None:
    shell.write("a.yaml", 'endpoint: fal-ai/any-llm\ninput: {model: openai/gpt-4o-mini, prompt: "why?"}\n')
    assert "fal-ai/any-llm is deprecated" in shell.falbatch("plan", "a.yaml").out
    shell.write("b.yaml", "endpoint: fal-ai/flux/devv\ninput: {prompt: x}\n")
    planned = shell.falbatch("plan", "b.yaml")
    assert planned.code == 0
    assert "b.yaml:1:1: fal-ai/flux/devv: inputs are not checked: fal has no schema for it; did you mean" in planned.out
    assert "fal-ai/flux/dev " in planned.out


@pytest.mark.parametrize(
    "words", [("plan", "a.yaml"), ("plan", "a.yaml", "--no-validate"), ("schema", "fal-ai/no/such")]
)
def test_an_unknown_endpoint_is_told_where_no_list_of_endpoints_is_known(words: tuple[str, ...], shell: Shell) -> None:
    shell.write("a.yaml", "endpoint: fal-ai/no/such\ninput: {prompt: x}\n")
    origin = shell.sandbox.origin
    places = {"FALBATCH_QUEUE_URL": f"{origin}/queue", "FALBATCH_OPENAPI_URL": f"{origin}/openapi"}
    ran = shell.falbatch(*words, FALBATCH_ORIGIN=None, **places)
    assert ran.code == (2 if words[0] == "schema" else 0), ran.err
    assert "Traceback" not in ran.err
    if "--no-validate" not in words:
        assert "fal has no schema" in ran.out + ran.err


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://[::1"])
def test_a_plan_goes_on_without_a_proxy_that_cannot_be_used(name: str, proxy: str, shell: Shell) -> None:
    shell.write("small.yaml", GOOD.replace("STEPS", "2"))
    planned = shell.falbatch("plan", "small.yaml", **{name: proxy})
    assert planned.code == 0, planned.err
    assert "inputs are not checked: the" in planned.out
    assert "proxy of the environment is not an HTTP proxy" in planned.out
    assert re.search(r"submit +2\n", planned.out)
    wrong = shell.falbatch("plan", "small.yaml", "--key-file", "none.txt", **{name: proxy})
    assert wrong.code == 4
    ran = shell.falbatch("run", "small.yaml", "--yes", **{name: proxy})
    assert (ran.code, shell.submits()) == (2, 0)


def test_names_that_nobody_resolves_hold_no_plan(shell: Shell) -> None:
    """DNS is silent for an hour; a plan that stayed for it would be ended by the shell's patience."""
    shell.write("small.yaml", GOOD.replace("STEPS", "2"))
    shell.write("lib/sitecustomize.py", "import socket, time\nsocket.getaddrinfo = lambda *a, **k: time.sleep(3600)\n")
    library = str(shell.folder / "lib")
    planned = shell.falbatch("plan", "small.yaml", FALBATCH_ORIGIN=None, PYTHONPATH=library)
    assert planned.code == 0, planned.err
    assert "fal did not answer within 5 s" in planned.out


LONELY = "http://127.0.0.1:9"
"""Where nobody answers."""


def aged(shell: Shell, origin: str, endpoint: str, document: Any, *, days: float) -> None:
    """Put a schema into the cache as if it had been heard days ago."""
    cache = open_cache({"FALBATCH_CACHE": str(shell.folder / "cache")}, f"{origin}/queue")
    cache.put("schema", endpoint, document, at=time.time() - days * 86400)


def test_a_schema_is_asked_for_once_a_day_and_serves_offline(shell: Shell) -> None:
    shell.write("small.yaml", GOOD.replace("STEPS", "99"))
    cache = str(shell.folder / "cache")
    offline = shell.falbatch("plan", "small.yaml", "--offline", FALBATCH_CACHE=cache)
    assert offline.code == 0
    assert "inputs are not checked: its schema is not in the cache" in offline.out
    for _ in range(3):
        assert shell.falbatch("plan", "small.yaml", FALBATCH_CACHE=cache).code == 2
    assert sum(shell.sandbox.stats()["requests"]["openapi"].values()) == 1
    offline = shell.falbatch("plan", "small.yaml", "--offline", FALBATCH_CACHE=cache)
    assert offline.code == 2
    assert "must be at most 12, not 99" in offline.err


def test_an_old_schema_serves_where_fal_does_not_answer_and_is_dated(shell: Shell) -> None:
    shell.write("small.yaml", GOOD.replace("STEPS", "2"))
    plain = shell.falbatch("plan", "small.yaml", FALBATCH_CACHE=str(shell.folder / "cache"), FALBATCH_ORIGIN=LONELY)
    assert plain.code == 0
    assert "inputs are not checked:" in plain.out
    document = shell.falbatch("schema", "fal-ai/flux/schnell", "--json").objects()[0]
    aged(shell, LONELY, "fal-ai/flux/schnell", document, days=40)
    day = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 40 * 86400))
    again = shell.falbatch("plan", "small.yaml", FALBATCH_CACHE=str(shell.folder / "cache"), FALBATCH_ORIGIN=LONELY)
    assert again.code == 0
    assert f"checked against the schema of {day}: " in again.out
    shell.write("small.yaml", GOOD.replace("STEPS", "99"))
    wrong = shell.falbatch("plan", "small.yaml", FALBATCH_CACHE=str(shell.folder / "cache"), FALBATCH_ORIGIN=LONELY)
    assert wrong.code == 2


PARTS: dict[str, Any] = {
    "A": {"allOf": [{"$ref": "#/components/schemas/B"}, {"properties": {"word": {"type": "string"}}}]},
    "B": {"allOf": [{"$ref": "#/components/schemas/C"}]},
    "C": {"type": "object", "properties": {"width": {"type": "integer"}}},
}


def test_a_schema_of_parts_of_parts_is_used_and_one_that_cannot_be_is_named(shell: Shell) -> None:
    shell.write("m.yaml", 'endpoint: a/b\ninput: {size: {word: x, width: "5"}}\nvalidate: {except: [sizee]}\n')
    cache = {"FALBATCH_CACHE": str(shell.folder / "cache"), "FALBATCH_ORIGIN": LONELY}
    good = openapi({"size": {"$ref": "#/components/schemas/A"}}, **PARTS)
    aged(shell, LONELY, "a/b", good, days=0)
    ran = shell.falbatch("plan", "m.yaml", "--offline", **cache)
    refused(shell, ran)
    assert "input.size.width must be a whole number" in ran.err
    assert 'validate.except: no endpoint has a field "sizee" (did you mean "size"?)' in ran.err
    aged(shell, LONELY, "a/b", openapi({"size": {"$ref": "#/components/schemas/A/b"}}, **{"A/b": PARTS["C"]}), days=0)
    ran = shell.falbatch("plan", "m.yaml", "--offline", **cache)
    assert ran.code == 0, ran.err
    assert "inputs are not checked: its schema cannot be used" in ran.out


def test_a_file_inside_an_input_is_checked_as_a_data_uri(shell: Shell) -> None:
    shell.write("a.png", b"\x89PNG\r\n\x1a\n" + bytes(32))
    shell.write("m.yaml", "endpoint: a/b\ninput: {mask: {file: a.png, as: data}, all: {file: a.png}}\n")
    cache = {"FALBATCH_CACHE": str(shell.folder / "cache"), "FALBATCH_ORIGIN": LONELY}
    fields = {"mask": {"type": "string", "pattern": "^data:", "maxLength": 9}, "all": {"type": "array"}}
    aged(shell, LONELY, "a/b", openapi(fields), days=0)
    ran = shell.falbatch("plan", "m.yaml", "--offline", **cache)
    refused(shell, ran)
    assert "input.mask" not in ran.err
    assert 'input.all must be a list, not a file [m.yaml] (write [{file: "a.png"}])' in ran.err.replace(
        "[job 1 (m.yaml)]", "[m.yaml]"
    )


@pytest.mark.parametrize("fault", ["hang", "status:500", "truncate", "corrupt", "drop_before"])
def test_no_run_is_blocked_by_a_schema_that_does_not_come(fault: str, shell: Shell) -> None:
    with SandboxProcess("--seed", "6", "--speed", "0") as sandbox:
        sandbox.add_faults([{"on": "openapi", "do": fault}, {"on": "platform", "do": fault}])
        shell.write("small.yaml", GOOD.replace("STEPS", "2"))
        ran = shell.falbatch("run", "small.yaml", FALBATCH_ORIGIN=sandbox.origin)
        assert ran.code == 0, ran.err
        assert "inputs are not checked: " in ran.err


def test_the_built_in_sandbox_has_schemas_too(shell: Shell) -> None:
    shell.write("small.yaml", GOOD.replace("STEPS", "99"))
    for command in ("plan", "run"):
        ran = shell.falbatch(command, "small.yaml", "--sandbox")
        assert ran.code == 2
        assert "must be at most 12, not 99" in ran.err


def test_jobs_that_send_the_same_are_named_unless_it_is_meant(shell: Shell) -> None:
    shell.write("small.yaml", GOOD.replace("kite {{ n }}", "kite").replace("STEPS", "2").replace("[1, 2]", "[1, 2, 3]"))
    said = "2 jobs send what another job sends, and each is paid for [job 2 (n=2)]"
    assert said in shell.falbatch("plan", "small.yaml").out
    assert said in shell.falbatch("run", "small.yaml", "--limit", "3").err
    assert "what another job sends" not in shell.falbatch("plan", "small.yaml").out  # they are done
    shell.write("small.yaml", GOOD.replace("STEPS", "2").replace("matrix: {n: [1, 2]}", "vars: {n: 7}\nrepeat: 2"))
    assert "what another job sends" not in shell.falbatch("plan", "small.yaml").out


def test_a_mistake_does_not_keep_what_was_paid_for_at_fal(shell: Shell) -> None:
    shell.write("small.yaml", GOOD.replace("STEPS", "2").replace("[1, 2]", "[1]"))
    killed = shell.falbatch("run", "small.yaml", **{VARIABLE: "after.SubmitAccepted"})
    assert killed.code == -signal.SIGKILL
    shell.write("small.yaml", GOOD.replace("STEPS", '"{{ 2 if n == 1 else 99 }}"'))
    ran = shell.falbatch("run", "small.yaml")
    assert ran.code == 2
    assert "what is paid for comes home first" in ran.err
    assert "must be at most 12, not 99" in ran.err
    (status,) = shell.falbatch("status", "out", "--json").objects()
    assert {state: count for state, count in status["states"].items() if count} == {"done": 1}
    assert shell.sandbox.ledger()["count"] == 1
    assert shell.falbatch("run", "small.yaml").err.count("comes home") == 0
