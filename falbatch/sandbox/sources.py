"""What a URL in an input shows, when it leads to this sandbox or holds the file itself; and what requests made.

An input may name a file that an earlier request made of a file that an earlier one made: the chain goes back in
time only, so it ends.
"""

from __future__ import annotations

import base64
import binascii
import re
import warnings
import wave
from contextlib import suppress
from functools import lru_cache, partial
from io import BytesIO
from typing import TYPE_CHECKING, Final

from falbatch.sandbox.media import Clip, Medium, Picture, Sound
from falbatch.sandbox.outputs import Source, Work
from falbatch.sandbox.states import Status

if TYPE_CHECKING:
    from pathlib import Path

    from falbatch.sandbox.requests import Request
    from falbatch.sandbox.world import World

_URL: Final = re.compile(r"https?://[^/?#]+/cdn/(files/[^?#]+)")
_MADE: Final = re.compile(r"files/(b/([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})/[^/]+)")

_MOST_LINKS: Final = 64
"""More would overflow the stack; beyond, the input counts as unknown."""
_HEAD_BYTES: Final = 256 * 1024
"""Enough for the size of any image; its pixels are not looked at."""


def work_of(world: World, request: Request, links: int = 0) -> Work:
    """What a request that succeeded made; `links` files lie between it and the one that is asked for."""
    return Work(request, request.payload, partial(_source, world, request.ordinal, links))


def file_at(world: World, path: str) -> tuple[Request, Medium] | None:
    """The file at `path` (behind the CDN's prefix) and the request that made it; None when there is none."""
    found = _MADE.fullmatch(path)
    request = world.requests.get("-".join(found.groups()[1:])) if found else None
    return None if found is None or request is None else _made_by(world, request, found[1], 0)


def _made_by(world: World, request: Request, path: str, links: int) -> tuple[Request, Medium] | None:
    if request.status is not Status.COMPLETED or request.verdict.status != 200:
        return None
    work = work_of(world, request, links)
    places = (place for place in range(len(work.files)) if work.path_of(place) == path)
    place = next(places, None)
    return None if place is None else (request, work.files[place])


def _source(world: World, before: int, links: int, url: str) -> Source | None:
    """What is behind `url`, for the request number `before`: of files made here, only older ones count."""
    if url[:5].lower() == "data:":
        return _seen(_inline(url))
    found = _URL.fullmatch(url)
    if found is None:
        return None
    made = _MADE.fullmatch(found[1])
    request = world.requests.get("-".join(made.groups()[1:])) if made else None
    if made is None or request is None:
        return _uploaded(world, found[1])
    if request.ordinal >= before or links >= _MOST_LINKS:
        return None
    file = _made_by(world, request, made[1], links + 1)
    return None if file is None else _known(file[1])


def _known(medium: Medium) -> Source:
    match medium:
        case Picture() | Clip():
            return Source(medium, size=(medium.width, medium.height))
        case Sound():
            return Source(medium, seconds=medium.seconds)
        case _:
            return Source(medium)


def _uploaded(world: World, path: str) -> Source | None:
    file = world.storage.find(path, world.now())
    return None if file is None else _looked_at(world.storage.place_of(file), file.sha256)


@lru_cache(maxsize=1024)
def _looked_at(place: Path, _sha256: str) -> Source | None:
    """What a stored file shows, by its first bytes; its hash tells two files of one name apart."""
    try:
        with place.open("rb") as file:
            return _seen(file.read(_HEAD_BYTES))
    except OSError:
        return None


def _inline(uri: str) -> bytes:
    """The first bytes of a data URI; none of one that is broken."""
    head, _, body = uri.partition(",")
    text = body[: 4 * _HEAD_BYTES // 3 // 4 * 4]
    if not head.endswith(";base64"):
        return b""
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return b""


def _seen(head: bytes) -> Source | None:
    """The size of an image, or the length of a WAV file, from its first bytes."""
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        with suppress(wave.Error, EOFError, ValueError), wave.open(BytesIO(head)) as sound:
            return Source(seconds=sound.getnframes() / sound.getframerate())
        return None
    from PIL import Image

    # Pillow warns of images that would be large in memory; nothing but their head is read here.
    with warnings.catch_warnings(), suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        warnings.simplefilter("ignore")
        with Image.open(BytesIO(head)) as image:
            return Source(size=image.size)
    return None
