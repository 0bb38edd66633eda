"""`call`, `upload`, `models`, `schema`: small direct windows on fal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from falbatch.cli.windows import field_lines
from falbatch.core.fields import Field
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Shell

SCHNELL = "fal-ai/flux/schnell"
SMALL = ("image_size.width=64", "image_size.height=48")


def test_a_call_prints_the_output_and_fetches_its_files(shell: Shell) -> None:
    ran = shell.falbatch("call", SCHNELL, "prompt=a red kite", "seed=7", "num_images=2", *SMALL, "--output", "kites")
    output = json.loads(ran.out)
    assert (ran.code, output["seed"], len(output["images"])) == (0, 7, 2)
    (execution,) = shell.sandbox.ledger()["executions"]
    assert execution["input"] == {
        "prompt": "a red kite",
        "seed": 7,
        "num_images": 2,
        "image_size": {"width": 64, "height": 48},
    }
    assert f"request {execution['request_id']}" in ran.err
    files = sorted((shell.folder / "kites").iterdir())
    assert [file.name for file in files] == ["flux-schnell-7-1.jpg", "flux-schnell-7-2.jpg"]
    with Image.open(files[0]) as picture:
        assert picture.size == (64, 48)


def test_files_are_never_written_over(shell: Shell) -> None:
    for _ in range(2):
        assert shell.falbatch("call", SCHNELL, "prompt=x", "seed=7", *SMALL, "--output", "kites").code == 0
    assert sorted(file.name for file in (shell.folder / "kites").iterdir()) == [
        "flux-schnell-7-2.jpg",
        "flux-schnell-7.jpg",
    ]


@pytest.mark.parametrize(
    ("way", "endpoint", "count"), [("--run", SCHNELL, 1), ("--realtime", "fal-ai/fast-lcm-diffusion", 1)]
)
def test_a_call_without_the_queue(way: str, endpoint: str, count: int, shell: Shell) -> None:
    ran = shell.falbatch("call", endpoint, "prompt=x", "seed=7", *SMALL, way, "--json", "--output", "out")
    (output,) = ran.objects()
    assert (ran.code, len(output["images"]), len(list((shell.folder / "out").iterdir()))) == (0, count, 1)
    assert shell.sandbox.ledger()["count"] == 1


def test_a_stream_prints_each_event(shell: Shell) -> None:
    ran = shell.falbatch("call", "fal-ai/any-llm", "model=x/y", "prompt=why is the sky blue?", "--stream")
    events = ran.objects()
    assert [event["partial"] for event in events] == [True] * (len(events) - 1) + [False]
    assert len(events) > 1


def test_a_file_is_uploaded_and_its_url_is_the_input(shell: Shell) -> None:
    picture = BytesIO()
    Image.new("RGB", (40, 30), (9, 9, 200)).save(picture, "PNG")
    shell.write("sketch.png", picture.getvalue())
    shell.write("input.yaml", "prompt: at night\nseed: 12345678901234567890123\n")
    ran = shell.falbatch(
        "call", "fal-ai/flux/dev/image-to-image", "image_url=@sketch.png", "--input", "input.yaml", "--json"
    )
    assert ran.code == 0, ran.err
    (execution,) = shell.sandbox.ledger()["executions"]
    (upload,) = shell.sandbox.uploads()["files"]
    assert execution["input"] == {
        "prompt": "at night",
        "seed": 12345678901234567890123,
        "image_url": upload["url"],
    }


def test_a_failed_call_says_why_and_ends_with_3(shell: Shell) -> None:
    ran = shell.falbatch("call", SCHNELL, "prompt=x", "num_images=99", "--no-validate")
    assert (ran.code, ran.out) == (3, "")
    assert "body.num_images" in ran.err
    assert "Traceback" not in ran.err


def test_a_call_that_fal_would_refuse_is_not_made(shell: Shell) -> None:
    ran = shell.falbatch("call", SCHNELL, "promt=x", "num_images=99")
    assert (ran.code, ran.out) == (2, "")
    assert f"{SCHNELL}: num_images must be at most 4, not 99 (write 4)" in ran.err
    assert f'{SCHNELL}: prompt is missing (is it "promt"?)' in ran.err
    assert "Nothing was submitted" in ran.err
    assert shell.sandbox.ledger()["count"] == 0
    warned = shell.falbatch("call", SCHNELL, "prompt=x", "sed=4", "image_size=square")
    assert warned.code == 0
    assert "warning: " in warned.err
    assert 'did you mean "seed"?' in warned.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("call", SCHNELL, "no-equals-sign"), 2, "is not NAME=VALUE"),
        (("call", SCHNELL, "a..b=1"), 2, "is not NAME=VALUE"),
        (("call", SCHNELL, "a=1", "a.b=2"), 2, "a has a value already"),
        (("call", SCHNELL, "image_url=@nowhere.png"), 2, "there is no file"),
        (("call", SCHNELL, "--input", "nowhere.yaml"), 2, "cannot be read"),
        (("call", "nonsense", "a=1"), 2, "not an endpoint id"),
        (("call", "fal-ai/does-not-exist", "prompt=x"), 3, "404"),
        (("call", SCHNELL, "--result", "00000000-0000-4000-8000-000000000000"), 3, "404"),
        (("upload", "nowhere.png"), 2, "there is no such file"),
        (("upload", "there.txt", "--expires-in", "soon"), 2, "--expires-in"),
        (("schema", "fal-ai/unknown"), 2, "404"),
        (("schema", "flux"), 2, "it has no alias (`falbatch models flux` searches)"),
        (("schema", "https://fal.ai/models/fal-ai/flux"), 2, "is a URL, not an endpoint id"),
    ],
)
def test_what_is_wrong_is_said_and_costs_nothing(words: tuple[str, ...], code: int, said: str, shell: Shell) -> None:
    shell.write("there.txt", "there")
    ran = shell.falbatch(*words)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert shell.sandbox.ledger()["count"] == 0


def test_a_key_is_needed_for_what_costs_and_for_nothing_else(shell: Shell) -> None:
    assert shell.falbatch("call", SCHNELL, "prompt=x", FAL_KEY=None).code == 4
    assert shell.falbatch("upload", str(shell.write("a.txt", "a")), FAL_KEY=None).code == 4
    assert shell.falbatch("models", "flux", FAL_KEY=None).code == 0
    assert shell.falbatch("schema", SCHNELL, FAL_KEY=None).code == 0


def test_uploads_print_their_urls(shell: Shell) -> None:
    paths = [shell.write(f"{name}.txt", name) for name in ("one", "two")]
    ran = shell.falbatch("upload", *map(str, paths), "--expires-in", "1d", "--json")
    files = shell.sandbox.uploads()["files"]
    assert [line["url"] for line in ran.objects()] == [file["url"] for file in files]
    assert all(file["expires_at"] is not None for file in files)
    assert shell.falbatch("upload", str(paths[0])).out.startswith("http")


def test_models_are_searched_and_shown(shell: Shell) -> None:
    lines = shell.falbatch("models", "flux").out.splitlines()
    assert any(line.startswith("fal-ai/flux/dev ") and "text-to-image" in line for line in lines)
    some = shell.falbatch("models", "--limit", "3")
    assert len(some.out.splitlines()) == 3
    assert "--limit N shows more" in some.err
    assert shell.falbatch("models", "--limit", "100").err == ""
    videos = shell.falbatch("models", "--category", "text-to-video", "--json").objects()
    assert {video["metadata"]["category"] for video in videos} == {"text-to-video"}
    assert "(deprecated)" in shell.falbatch("models", "--status", "deprecated").out
    none = shell.falbatch("models", "no such model anywhere")
    assert (none.code, none.out) == (0, "")
    assert none.err == "no model matches\n"


def test_a_category_that_fal_does_not_have_is_told_with_those_that_it_has(shell: Shell) -> None:
    none = shell.falbatch("models", "--category", "text-to-pic")
    assert (none.code, none.out) == (0, "")
    assert "no model matches: there is no category 'text-to-pic' (did you mean \"text-to-" in none.err
    assert "image-to-image, " in none.err
    other = shell.falbatch("models", "no such model anywhere", "--category", "text-to-image")
    assert other.err == "no model matches\n"


def test_a_schema_is_a_table_or_the_document(shell: Shell) -> None:
    table = shell.falbatch("schema", "fal-ai/flux/dev").out
    assert "prompt*" in table
    assert "1 to 50; default 28" in table
    assert "output:" in table
    assert "image_size.width " in table
    assert "images[].url* " in table
    (document,) = shell.falbatch("schema", "fal-ai/flux/dev", "--json").objects()
    assert document["openapi"].startswith("3.0")


@pytest.fixture
def slow(shell: Shell) -> Iterator[SandboxProcess]:
    with SandboxProcess("--seed", "5", "--speed", "20") as sandbox:
        yield sandbox


def test_a_call_that_is_stopped_says_how_to_collect_its_result(shell: Shell, slow: SandboxProcess) -> None:
    environment = shell.environment(FALBATCH_ORIGIN=slow.origin)
    command = [sys.executable, "-m", "falbatch", "call", "fal-ai/veo3.1", "prompt=waves"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=shell.folder, env=environment, stdout=pipe, stderr=pipe, text=True)
    assert process.stderr is not None
    first = process.stderr.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=30)
    request_id = first.split()[1]
    assert process.returncode == 130
    assert f"falbatch call fal-ai/veo3.1 --result {request_id}" in rest
    ran = shell.falbatch(
        "call", "fal-ai/veo3.1", "--result", request_id, "--output", "waves", FALBATCH_ORIGIN=slow.origin
    )
    assert (ran.code, slow.ledger()["count"]) == (0, 1), ran.err
    assert [path.suffix for path in (shell.folder / "waves").iterdir()] == [".mp4"]


@pytest.mark.parametrize(
    "words",
    [
        ("call", SCHNELL, "--run", "prompt=x", "--json", *SMALL),
        ("call", "--run", SCHNELL, *SMALL, "--json", "prompt=x"),
        ("call", SCHNELL, *SMALL, "--run", "prompt=x", "--json"),
    ],
)
def test_fields_and_options_stand_in_any_order(words: tuple[str, ...], shell: Shell) -> None:
    ran = shell.falbatch(*words)
    assert (ran.code, len(ran.objects())) == (0, 1), ran.err


def test_an_option_that_does_not_exist_is_told_with_the_commands_own_usage(shell: Shell) -> None:
    for words in (("call", SCHNELL, "prompt=x", "--nope"), ("plan", "m.yaml", "--nope"), ("models", "x", "--nope")):
        ran = shell.falbatch(*words)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith(f"usage: falbatch {words[0]} ")
        assert "--nope" in ran.err


def test_what_fal_says_cannot_move_the_cursor() -> None:
    field = Field("a\x1b[2J", "text\x9b", False, '"\\u009b"', "", "one\x1b]0;x\x07two")
    assert all(line.isprintable() for line in field_lines([field], 80))
