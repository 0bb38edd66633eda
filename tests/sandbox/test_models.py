"""Every model with a schema: submitted with its own example, its answer held to its own schema, its files decoded."""

from __future__ import annotations

import base64
import io
import json
import wave
from typing import TYPE_CHECKING, Any

import av
import jsonschema
import pytest
from PIL import Image

from falbatch.sandbox.catalogue.model import Model, plain, plain_output
from falbatch.sandbox.catalogue.models import MODELS
from falbatch.sandbox.endpoints import profile_of
from falbatch.sandbox.verdict import arguments_of, units
from tests.sandbox.conftest import Fal
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@pytest.fixture(scope="module")
def quick() -> Iterator[SandboxProcess]:
    """No service times: a training is over at once."""
    with SandboxProcess("--seed", "3", "--speed", "0") as process:
        yield process
        process.stop()
        assert process.errors == ""


@pytest.fixture(scope="module")
def client(quick: SandboxProcess) -> Iterator[Fal]:
    fal = Fal(quick.origin)
    yield fal
    fal.close()


def file_objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if isinstance(value.get("url"), str):
            yield value
        for member in value.values():
            yield from file_objects(member)
    elif isinstance(value, list):
        for entry in value:
            yield from file_objects(entry)


def fetch(fal: Fal, url: str) -> tuple[bytes, str]:
    """Body and content type."""
    if url.startswith("data:"):
        head, _, body = url.partition(",")
        return base64.b64decode(body), head.removeprefix("data:").partition(";")[0]
    reply = fal.file(url)
    assert reply.status_code == 200, url
    return reply.content, reply.headers["content-type"]


def decode_video(body: bytes) -> tuple[list[str], float, tuple[int, int], int]:
    """Codecs, seconds, size and frames."""
    with av.open(io.BytesIO(body), "r") as container:
        codecs = [stream.codec_context.name for stream in container.streams]
        seconds = float(container.duration or 0) / av.time_base
        frames = [(frame.width, frame.height) for frame in container.decode(video=0)]
    assert len(set(frames)) == 1
    return codecs, seconds, frames[0], len(frames)


def decode(body: bytes, content_type: str) -> None:
    """Read the whole file as its type says."""
    match content_type:
        case "image/jpeg" | "image/png":
            image = Image.open(io.BytesIO(body))
            image.load()
            assert Image.MIME[str(image.format)] == content_type
        case "video/mp4":
            assert decode_video(body)[3] > 10
        case "audio/wav":
            with wave.open(io.BytesIO(body)) as sound:
                assert len(sound.readframes(sound.getnframes())) == 2 * sound.getnframes() > 0
        case "application/octet-stream":
            assert tensors(body)
        case "application/json":
            assert isinstance(json.loads(body), dict)
        case _:
            raise AssertionError(content_type)


def tensors(body: bytes) -> dict[str, Any]:
    """The table of a safetensors file, whose tensors must fill the file exactly."""
    length = int.from_bytes(body[:8], "little")
    table: dict[str, Any] = json.loads(body[8 : 8 + length])
    table.pop("__metadata__")
    spans = sorted(entry["data_offsets"] for entry in table.values())
    assert [first for first, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert spans[-1][1] == len(body) - 8 - length
    return table


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_example_gives_an_answer_of_the_schema_and_files_that_decode(
    client: Fal, quick: SandboxProcess, model: Model
) -> None:
    request = client.submit(model.example, model.endpoint)
    reply = client.result(request)
    assert reply.status_code == 200, reply.text
    output = reply.json()
    jsonschema.Draft202012Validator(_closed(plain_output(model))).validate(output)
    for file in file_objects(output):
        body, content_type = fetch(client, file["url"])
        decode(body, content_type)
        assert file["content_type"] == content_type
        assert file.get("file_size") in {None, len(body)}
        assert file.get("file_name", "") in file["url"] or file["url"].startswith("data:")
    (entry,) = [one for one in quick.ledger()["executions"] if one["request_id"] == request["request_id"]]
    profile = profile_of(model.endpoint)
    assert entry["billable_units"] == units(profile, arguments_of(profile, model.example)) > 0
    assert entry["cost"] == pytest.approx(entry["billable_units"] * profile.unit_price, abs=1e-6)
    assert float(reply.headers["x-fal-billable-units"]) == pytest.approx(entry["billable_units"], rel=1e-4)


def _closed(schema: Any) -> Any:
    """The schema with no room for a member that it does not name."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") in ("object", ["object", "null"]):
        made["additionalProperties"] = False
    return made


def test_a_plain_schema_says_null_in_its_own_words() -> None:
    shared: Mapping[str, Any] = {"A": {"type": "integer"}}
    cases: list[tuple[dict[str, Any], list[Any], list[Any]]] = [
        ({"$ref": "#/components/schemas/A"}, [1], [None, "x"]),
        ({"type": "string", "nullable": True}, ["x", None], [1]),
        ({"type": "string", "enum": ["a"], "nullable": True}, ["a", None], ["b"]),
        ({"anyOf": [{"type": "string"}, {"$ref": "#/components/schemas/A"}], "nullable": True}, ["a", 1, None], [[]]),
        ({"allOf": [{"$ref": "#/components/schemas/A"}], "nullable": True}, [1, None], ["x"]),
    ]
    for schema, good, bad in cases:
        validator = jsonschema.Draft202012Validator(plain(schema, shared))
        assert all(validator.is_valid(value) for value in good)
        assert not any(validator.is_valid(value) for value in bad)


def run(fal: Fal, endpoint: str, **payload: Any) -> dict[str, Any]:
    return fal.run(payload, endpoint)


@pytest.mark.parametrize(
    ("endpoint", "payload", "size", "seconds", "has_sound"),
    [
        ("fal-ai/veo3.1", {"duration": "4s", "aspect_ratio": "9:16"}, (360, 640), 4, True),
        ("fal-ai/veo3.1", {"duration": "6s", "resolution": "1080p", "generate_audio": False}, (960, 540), 6, False),
        ("fal-ai/kling-video/v2.6/pro/text-to-video", {"duration": "10", "aspect_ratio": "1:1"}, (360, 360), 10, True),
    ],
)
def test_a_video_has_the_shape_length_and_sound_that_were_asked_for(
    client: Fal, endpoint: str, payload: dict[str, Any], size: tuple[int, int], seconds: float, has_sound: bool
) -> None:
    output = run(client, endpoint, prompt="a kite", **payload)
    body, _ = fetch(client, output["video"]["url"])
    codecs, length, shape, _ = decode_video(body)
    assert codecs == (["h264", "aac"] if has_sound else ["h264"])
    assert shape == size
    assert length == pytest.approx(seconds, abs=0.1)


def test_equal_videos_and_sounds_are_equal_files_and_others_are_not(client: Fal) -> None:
    def video(**payload: Any) -> bytes:
        output = run(client, "fal-ai/veo3.1", duration="4s", generate_audio=False, **payload)
        return fetch(client, output["video"]["url"])[0]

    assert video(prompt="a kite", seed=4) == video(prompt="a kite", seed="4") != video(prompt="a kite", seed=5)
    voices = [
        run(client, "fal-ai/kokoro", prompt="One. Two.", voice=voice) for voice in ("af_sky", "af_sky", "am_puck")
    ]
    first, same, other = (fetch(client, output["audio"]["url"])[0] for output in voices)
    assert first == same != other


def test_files_of_all_kinds_come_in_ranges(client: Fal) -> None:
    url = run(client, "fal-ai/kokoro", prompt="A kite.")["audio"]["url"]
    whole = client.file(url)
    part = client.file(url, Range="bytes=100-299", **{"If-Range": whole.headers["etag"]})
    assert (part.status_code, part.content) == (206, whole.content[100:300])


def test_speech_grows_with_the_text_and_shrinks_with_speed(client: Fal) -> None:
    def seconds(**payload: Any) -> float:
        audio = run(client, "fal-ai/kokoro", **payload)["audio"]
        body, _ = fetch(client, audio["url"])
        assert audio["file_size"] == len(body)
        with wave.open(io.BytesIO(body)) as sound:
            length: float = sound.getnframes() / sound.getframerate()
        return length

    text = "The wind is kind today."
    assert seconds(prompt=text * 3) == pytest.approx(3 * seconds(prompt=text))
    assert seconds(prompt=text, speed=2) == pytest.approx(seconds(prompt=text) / 2, rel=0.01)
    assert seconds(prompt="") > 0
    assert seconds(prompt="word " * 5000) == 120


def test_what_was_spoken_here_is_heard_here(client: Fal) -> None:
    text = "The kite is up. The wind is kind today."
    audio = run(client, "fal-ai/kokoro", prompt=text)["audio"]["url"]
    heard = run(client, "fal-ai/whisper", audio_url=audio, diarize=True)
    assert heard["text"] == text
    assert [chunk["text"] for chunk in heard["chunks"]] == ["The kite is up.", "The wind is kind today."]
    assert heard["chunks"][0]["timestamp"][1] == heard["chunks"][1]["timestamp"][0] > 0
    assert [part["speaker"] for part in heard["diarization_segments"]] == ["SPEAKER_00", "SPEAKER_01"]
    words = run(client, "fal-ai/whisper", audio_url=audio, chunk_level="word", language="de")
    assert [chunk["text"] for chunk in words["chunks"]] == text.split()
    assert words["inferred_languages"] == ["de"]
    assert run(client, "fal-ai/whisper", audio_url=audio, chunk_level="none")["chunks"] == []
    elsewhere = run(client, "fal-ai/wizper", audio_url="https://example.org/a.mp3")
    assert elsewhere["text"] != text
    assert elsewhere["text"] == run(client, "fal-ai/wizper", audio_url="https://example.org/a.mp3")["text"]


def test_a_language_model_keeps_to_its_limit_and_reasons_when_told_to(client: Fal) -> None:
    asked = {"prompt": "why is the sky blue", "model": "google/gemini-2.5-flash"}
    plain_answer = run(client, "openrouter/router", **asked)
    assert (plain_answer["reasoning"], plain_answer["error"]) == (None, None)
    short = run(client, "openrouter/router", **asked, max_tokens=5, reasoning=True)
    assert len(short["output"].split()) == short["usage"]["completion_tokens"] == 5
    assert short["reasoning"]
    assert short["usage"]["prompt_tokens"] == 5


def test_a_training_gives_weights_and_the_settings_they_came_from(client: Fal) -> None:
    output = run(
        client,
        "fal-ai/flux-lora-fast-training",
        images_data_url="https://example.org/a.zip",
        trigger_word="KITE",
        steps="20",
    )
    lora, config = output["diffusers_lora_file"], output["config_file"]
    assert (lora["file_name"], config["file_name"]) == ("pytorch_lora_weights.safetensors", "config.json")
    body, _ = fetch(client, lora["url"])
    assert len(body) == lora["file_size"]
    assert {entry["dtype"] for entry in tensors(body).values()} == {"F16"}
    settings = json.loads(fetch(client, config["url"])[0])
    assert (settings["trigger_word"], settings["steps"], settings["is_style"]) == ("KITE", 20, False)
    assert output["debug_preprocessed_output"] is None
