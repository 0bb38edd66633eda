"""Inputs that are files: of this sandbox, uploaded to it, or carried along; and those that nobody can look at."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import av
import pytest
from PIL import Image, ImageChops

from falbatch.sandbox.ids import digest, request_id
from tests.sandbox.conftest import Fal
from tests.sandbox.uploading import upload
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 11
EDIT = "fal-ai/flux/dev/image-to-image"
UPSCALER = "fal-ai/clarity-upscaler"
MOVER = "fal-ai/kling-video/v2.5-turbo/pro/image-to-video"


@pytest.fixture(scope="module")
def process() -> Iterator[SandboxProcess]:
    """No service times: a video is made at once."""
    with SandboxProcess("--seed", str(SEED), "--speed", "0") as started:
        yield started
        started.stop()
        assert started.errors == ""


@pytest.fixture(scope="module")
def fal(process: SandboxProcess) -> Iterator[Fal]:
    client = Fal(process.origin)
    yield client
    client.close()


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 80, 40)).save(buffer, "PNG")
    return buffer.getvalue()


def small(fal: Fal, **more: Any) -> str:
    """The URL of a picture that this sandbox made."""
    size = {"width": 120, "height": 90}
    url: str = fal.run({"prompt": "a kite", "image_size": size, **more}, "fal-ai/fast-sdxl")["images"][0]["url"]
    return url


def sizes(fal: Fal, endpoint: str, **payload: Any) -> tuple[int, int]:
    """What the result says, and what its file is: the same."""
    output = fal.run(payload, endpoint)
    image = output["image"] if "image" in output else output["images"][0]
    picture = Image.open(io.BytesIO(fal.file(image["url"]).content))
    assert picture.size == (image["width"], image["height"])
    return picture.size


def test_an_edit_has_the_size_of_its_input(fal: Fal) -> None:
    assert sizes(fal, EDIT, prompt="in snow", image_url=small(fal)) == (120, 90)
    assert sizes(fal, EDIT, prompt="in snow", image_url="https://example.org/a.png") == (1024, 768)
    carried = f"data:image/png;base64,{base64.b64encode(png(70, 50)).decode()}"
    assert sizes(fal, EDIT, prompt="in snow", image_url=carried) == (70, 50)
    assert sizes(fal, EDIT, prompt="in snow", image_url=upload(fal, png(33, 44))) == (33, 44)


@pytest.mark.parametrize("url", ["data:image/png;base64,!!!", "data:,hello", "data:image/png;base64,aGVsbG8=", "", "x"])
def test_an_input_that_shows_nothing_gives_the_usual_size(fal: Fal, url: str) -> None:
    assert sizes(fal, EDIT, prompt="in snow", image_url=url) == (1024, 768)


def test_an_uploaded_text_is_no_image(fal: Fal) -> None:
    assert sizes(fal, EDIT, prompt="in snow", image_url=upload(fal, b"no image")) == (1024, 768)


def test_an_upscaler_multiplies_and_shows_the_same_picture(fal: Fal) -> None:
    url = small(fal)
    output = fal.run({"image_url": url, "upscale_factor": 3}, UPSCALER)
    large = Image.open(io.BytesIO(fal.file(output["image"]["url"]).content))
    assert (large.size, large.format) == ((360, 270), "PNG")
    assert output["image"]["file_name"] in output["image"]["url"]
    before = Image.open(io.BytesIO(fal.file(url).content)).convert("RGB")
    # The upper part, above the captions, which are written anew.
    again = large.convert("RGB").resize(before.size).crop((0, 0, 120, 60))
    difference = ImageChops.difference(again, before.crop((0, 0, 120, 60))).convert("L")
    assert sum(value * count for value, count in enumerate(difference.histogram())) / (120 * 60) < 16


def test_upscaled_pictures_can_be_upscaled_again(fal: Fal) -> None:
    url = small(fal)
    for side in (240, 480):
        output = fal.run({"image_url": url, "upscale_factor": "2"}, UPSCALER)
        url = output["image"]["url"]
        assert output["image"]["width"] == side
    assert Image.open(io.BytesIO(fal.file(url).content)).size == (480, 360)


def test_a_video_of_an_image_has_its_shape(fal: Fal) -> None:
    output = fal.run({"prompt": "wind", "image_url": upload(fal, png(90, 160))}, MOVER)
    with av.open(io.BytesIO(fal.file(output["video"]["url"]).content)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (360, 640)
        assert len(container.streams.audio) == 0


def test_a_request_that_names_its_own_file_is_answered(fal: Fal, process: SandboxProcess) -> None:
    """Ids can be foretold from a seed: a chain of files must end all the same."""
    before = fal.submit({"image_url": small(fal)}, UPSCALER)["request_id"]
    coming = request_id(SEED, process.request(before)["ordinal"] + 1)
    mark = base64.b32encode(digest("file", coming, 0, size=10)).decode().lower()
    own = f"{fal.origin}/cdn/files/b/{coming.replace('-', '')}/{mark}.png"
    request = fal.submit({"image_url": own, "upscale_factor": 1}, UPSCALER)
    image = fal.result(request).json()["image"]
    assert (request["request_id"], image["url"]) == (coming, own)
    assert (image["width"], image["height"]) == (1024, 768)
    assert fal.file(own).status_code == 200


def test_a_long_chain_of_files_keeps_its_size_for_a_while_and_breaks_nothing(fal: Fal) -> None:
    url, widths = small(fal), []
    for _ in range(70):
        image = fal.run({"image_url": url, "upscale_factor": 1}, UPSCALER)["image"]
        url = image["url"]
        widths.append(image["width"])
    assert set(widths[:60]) == {120}
    assert fal.file(url).status_code == 200
