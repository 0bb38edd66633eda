"""Files: public, of the asked size and format, with ranges; and the key has no business there."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import TYPE_CHECKING

import httpx
import pytest
from PIL import Image

if TYPE_CHECKING:
    from tests.sandbox.conftest import Fal
    from tests.sandbox_process import SandboxProcess

PICTURE = {"prompt": "a lighthouse", "seed": 3, "image_size": {"width": 160, "height": 120}}


@pytest.fixture
def url(fal: Fal) -> str:
    found: str = fal.run(PICTURE)["images"][0]["url"]
    return found


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ({"width": 200, "height": 130}, (200, 130)),
        ({"width": 1, "height": 77}, (1, 77)),
        ({"width": 33}, (33, 512)),
        ("landscape_16_9", (1024, 576)),
        (None, (1024, 768)),
    ],
)
@pytest.mark.parametrize("format_", ["jpeg", "png", "webp"])
def test_a_file_decodes_in_the_asked_size_and_format(
    fal: Fal, size: object, expected: tuple[int, int], format_: str
) -> None:
    payload = {"prompt": "x", "image_size": size, "output_format": format_}
    image = fal.run(payload, "someone/unheard-of")["images"][0]
    reply = fal.file(image["url"])
    picture = Image.open(BytesIO(reply.content))
    picture.load()
    assert (picture.size, picture.format) == (expected, format_.upper())
    assert reply.headers["content-type"] == image["content_type"] == f"image/{format_}"
    assert int(reply.headers["content-length"]) == len(reply.content)
    assert (image["width"], image["height"]) == expected


def test_equal_seeds_give_equal_files_and_other_seeds_others(fal: Fal, url: str) -> None:
    same = fal.run(PICTURE)["images"][0]["url"]
    other = fal.run({**PICTURE, "seed": 4})["images"][0]["url"]
    assert same != url
    assert fal.file(same).content == fal.file(url).content
    assert fal.file(other).content != fal.file(url).content


def test_the_images_of_one_request_differ(fal: Fal) -> None:
    images = fal.run({**PICTURE, "num_images": 3})["images"]
    assert len({fal.file(image["url"]).content for image in images}) == 3


def test_sync_mode_gives_data_uris(fal: Fal, url: str) -> None:
    inline = fal.run({**PICTURE, "sync_mode": True})["images"][0]["url"]
    head, _, body = inline.partition(",")
    assert head == "data:image/jpeg;base64"
    assert base64.b64decode(body) == fal.file(url).content


def test_head_tells_length_and_sends_no_body(fal: Fal, url: str) -> None:
    reply = fal.public.head(url)
    assert reply.status_code == 200
    assert int(reply.headers["content-length"]) == len(fal.file(url).content)
    assert reply.headers["accept-ranges"] == "bytes"
    assert reply.content == b""


@pytest.mark.parametrize("wanted", ["0-99", "100-", "-50", "10-10", "5-999999"])
def test_a_range_is_a_slice_of_the_whole(fal: Fal, url: str, wanted: str) -> None:
    whole = fal.file(url).content
    reply = fal.file(url, Range=f"bytes={wanted}")
    first, _, last = wanted.partition("-")
    start = int(first) if first else len(whole) - int(last)
    end = min(int(last), len(whole) - 1) if first and last else len(whole) - 1
    assert reply.status_code == 206
    assert reply.content == whole[start : end + 1]
    assert reply.headers["content-range"] == f"bytes {start}-{end}/{len(whole)}"
    assert int(reply.headers["content-length"]) == len(reply.content)


def test_a_range_beyond_the_end_is_416(fal: Fal, url: str) -> None:
    size = len(fal.file(url).content)
    reply = fal.file(url, Range=f"bytes={size}-")
    assert (reply.status_code, reply.headers["content-range"]) == (416, f"bytes */{size}")


@pytest.mark.parametrize("nonsense", ["bytes=9-3", "bytes=a-b", "lines=1-2", "bytes=-", "bytes=0-1,4-5"])
def test_a_range_that_makes_no_sense_is_ignored(fal: Fal, url: str, nonsense: str) -> None:
    assert fal.file(url, Range=nonsense).status_code == 200


def test_if_range_gives_the_rest_only_of_the_same_version(fal: Fal, url: str) -> None:
    etag = fal.file(url).headers["etag"]
    assert fal.file(url, **{"Range": "bytes=10-", "If-Range": etag}).status_code == 206
    changed = fal.file(url, **{"Range": "bytes=10-", "If-Range": '"other"'})
    assert (changed.status_code, changed.content) == (200, fal.file(url).content)


def test_a_key_sent_to_the_cdn_is_counted_as_leaked(fal: Fal, url: str, sandbox: SandboxProcess) -> None:
    assert fal.file(url).status_code == 200
    assert sandbox.stats()["leaked_keys"] == 0
    assert fal.get(url).status_code == 200
    assert sandbox.stats()["leaked_keys"] == 1


def test_files_of_nothing_are_not_found(fal: Fal, url: str) -> None:
    for wrong in (url[:-5] + ".png", url.replace("/b/", "/b/0"), f"{fal.origin}/cdn/files/x", f"{fal.origin}/cdn/"):
        assert fal.file(wrong).status_code == 404
    assert fal.public.post(url).status_code == 405


def test_a_running_request_has_no_files_yet(fal: Fal, url: str) -> None:
    request = fal.submit(PICTURE, "fal-ai/kling-video/x")
    early = url.split("/b/", maxsplit=1)[0] + f"/b/{request['request_id'].replace('-', '')}/x.jpg"
    assert httpx.get(early).status_code == 404
