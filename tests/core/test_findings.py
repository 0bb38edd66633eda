"""What the checks of many inputs come to: each cause once, with its place, its jobs and a remedy."""

from __future__ import annotations

from typing import Any

from falbatch.core.checking import InputCheck, InputFault
from falbatch.core.findings import ALIKE, CAUSES, Findings
from falbatch.core.manifest import Manifest, parse_manifest
from tests.core.openapi import document

CHECK = InputCheck(
    document(
        {
            "prompt": {"type": "string"},
            "steps": {"type": "integer"},
            "size": {"type": "string", "enum": ["square", "wide"]},
            "loras": {"type": "array", "items": {"type": "object", "properties": {"scale": {"type": "number"}}}},
        },
        required=["prompt"],
    )
)
MANIFEST = """\
endpoint: a/b
rows: people.csv
input:
  prompt: "{{ row.text }}"
  steps: "{{ row.steps }}"
  size: "{{ row.size }}"
  loras:
    - scale: "{{ row.scale }}"
"""


def manifest(more: str = "") -> Manifest:
    return parse_manifest((MANIFEST + more).encode(), source="m.yaml")


def findings(*inputs: dict[str, Any], more: str = "") -> Findings:
    found = Findings(manifest(more), {"a/b": CHECK})
    for seq, given in enumerate(inputs):
        found.look("a/b", {"prompt": "x", **given}, seq, f"people.csv:{seq + 2}")
    return found


def test_a_cause_is_said_once_with_place_jobs_and_remedy() -> None:
    found = findings({"steps": "1"}, {}, {"steps": "2"}, {"steps": "3"}, {"steps": "4"})
    (problem,) = found.errors
    assert str(problem) == (
        'm.yaml:5:3: input.steps must be a whole number, not the text "1" [4 jobs: job 1 (people.csv:2);'
        ' job 3 (people.csv:4); job 4 (people.csv:5), …] (write "{{ row.steps | int }}")'
    )


def test_one_job_is_named_alone() -> None:
    (problem,) = findings({}, {"steps": "2"}).errors
    assert "[job 2 (people.csv:3)]" in problem.what


def test_values_with_remedies_of_their_own_are_told_apart_up_to_a_few() -> None:
    found = findings(*({"size": f"squar{number}"} for number in range(ALIKE + 20)))
    assert len(found.errors) == ALIKE + 1
    counts = [problem.what.partition("[")[2].partition(" ")[0] for problem in found.errors]
    assert sorted(counts) == ["20", *["job"] * ALIKE]
    assert all("did you mean" in problem.hint for problem in found.errors)


def test_a_job_counts_once_however_many_entries_are_wrong() -> None:
    (problem,) = findings({"loras": [{"scale": "1"}, {"scale": "2"}]}).errors
    assert "input.loras[0].scale" in problem.what
    assert "[job 1 (people.csv:2)]" in problem.what
    assert problem.line == 8


def test_warnings_are_apart_from_errors_and_both_are_in_the_order_of_the_manifest() -> None:
    found = findings({"size": "x", "steps": "1", "colour": "red"})
    assert [problem.line for problem in found.errors] == [5, 6]
    (warning,) = found.warnings
    assert warning.what.startswith("input.colour is not in the endpoint's schema")


def test_excepted_fields_are_taken_as_they_are_with_all_in_them() -> None:
    wrong = {"steps": "1", "size": "x", "loras": [{"scale": "1", "other": 2}], "colour": 1}
    assert len(findings(wrong).errors) == 3
    found = findings(wrong, more="validate: {except: [steps, size, 'loras[].scale', loras.other, colour]}\n")
    assert found.errors == found.warnings == ()
    assert len(findings(wrong, more="validate: {except: [loras]}\n").errors) == 2


def test_endpoints_that_ask_for_the_same_share_a_cause_and_others_are_named() -> None:
    other = InputCheck(
        document({"prompt": {"type": "string"}, "steps": {"type": "integer"}, "size": {"type": "integer"}})
    )
    found = Findings(manifest(), {"a/b": CHECK, "c/d": other})
    for seq, endpoint in enumerate(("a/b", "c/d")):
        found.look(endpoint, {"prompt": "x", "steps": "1", "size": "square"}, seq, f"people.csv:{seq + 2}")
    both, one = found.errors
    assert both.what.startswith("input.steps must be")
    assert "2 jobs" in both.what
    assert one.what.startswith("input.size of c/d must be")


def test_an_endpoint_without_a_schema_is_not_checked() -> None:
    found = Findings(manifest(), {})
    found.look("a/b", {"steps": "x"}, 0, "people.csv:2")
    assert found.errors == ()


def test_very_many_causes_are_bounded_and_counted() -> None:
    found = findings(*({f"field{number}": 1, "steps": "1"} for number in range(CAUSES + 50)))
    assert len(found.errors) == 1
    assert len(found.warnings) == CAUSES + 1
    assert found.warnings[-1].what == "and 50 more of other kinds"


def test_words_of_others_move_no_cursor() -> None:
    strange = "a\x1b[31m\x07\nq"
    check = InputCheck(document({strange: {"type": "integer"}, "word": {"enum": [strange]}}, required=[strange]))
    found = Findings(manifest(), {"a/b": check})
    found.look("a/b", {"word": "b\x1b]0;x\x07", "a\x1b[31mq": 1, "other": 1}, 0, "style=\x1b[2J")
    said = [*found.errors, *found.warnings]
    assert len(said) == 4
    for problem in said:
        assert (problem.what + problem.hint).isprintable()


def idle(except_: str) -> list[str]:
    found = findings({}, more=f"validate: {{except: {except_}}}\n")
    return [str(problem) for problem in found.idle_exceptions()]


def test_an_exception_that_is_no_field_is_said_with_the_nearest() -> None:
    (said,) = idle("[steps, stesp]")
    assert said == 'm.yaml:9:28: validate.except: no endpoint has a field "stesp" (did you mean "steps"?)'
    (said,) = idle("['loras[].scael']")
    assert '"loras.scael" (did you mean "scale"?)' in said


def test_an_exception_may_be_a_field_of_the_schema_or_of_the_input_alone() -> None:
    assert idle("[prompt, loras.scale, steps]") == []
    other = InputCheck(document({"prompt": {"type": "string"}, "any": {"type": "object"}}))
    more = "validate: {except: [steps, 'loras[].scale', any.thing, sizee]}\n"
    found = Findings(manifest(more), {"a/b": other})
    assert [problem.what for problem in found.idle_exceptions()] == ['validate.except: no endpoint has a field "sizee"']
    assert list(Findings(manifest(more), {}).idle_exceptions()) == []


def test_a_cause_is_found_without_writing_out_all_of_its_choices() -> None:
    class Choice(str):
        __slots__ = ()
        written = 0

        def __repr__(self) -> str:
            Choice.written += 1
            return str.__repr__(self)

    many = tuple(Choice(f"choice {number}") for number in range(3000))
    fault = InputFault(("size",), "enum", None, "x", choices=many)
    assert hash(fault.asks) == hash(fault.asks)
    assert Choice.written < 100
    fewer = InputFault(("size",), "enum", None, "x", choices=many[:-1])
    assert fault.asks != fewer.asks


def test_a_warning_and_an_error_of_one_place_are_told_apart() -> None:
    check = InputCheck(document({"size": {"enum": ["a"], "default": "b"}}))
    found = Findings(manifest(), {"a/b": check})
    for seq, size in enumerate(("b", "c")):
        found.look("a/b", {"size": size}, seq, f"people.csv:{seq + 2}")
    assert "job 2" in found.errors[0].what
    assert "job 1" in found.warnings[0].what
