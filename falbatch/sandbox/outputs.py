"""What a request that succeeded answers and which files it made, as a function of the request and its sources.

Nothing is stored but the input. A source is a file that the input names, when this sandbox can know what it shows.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox import wording
from falbatch.sandbox.catalogue.model import plain_output
from falbatch.sandbox.catalogue.models import model_of
from falbatch.sandbox.endpoints import Kind, Profile, profile_of
from falbatch.sandbox.faults import Do
from falbatch.sandbox.ids import digest, number64
from falbatch.sandbox.media import Clip, Document, Medium, Picture, Sound, Weights
from falbatch.sandbox.validation import MAX_SIDE, as_integer
from falbatch.sandbox.verdict import (
    arguments_of,
    audio_seconds,
    image_count,
    image_size,
    video_seconds,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from falbatch.sandbox.requests import Request

ODD_ERROR: Final = "The model ran out of memory and gave up"
"""What `error_in_result` says."""

MAX_VIDEO_S: Final = 30.0
"""A longer video ends there."""

_SHORT_SIDES: Final[Mapping[str, int]] = {"720p": 720, "1080p": 1080, "4k": 2160}
_MOST_SHORT_SIDE: Final = 540
"""Frames have half the asked sides, and no more than this: 4k is for models with more than a quarter of a core."""
_MOST_ASPECT: Final = 3.0


@dataclass(frozen=True, slots=True)
class Source:
    """What is known of a file that an input names."""

    medium: Medium | None = None
    """For a file that a request of this sandbox made."""
    size: tuple[int, int] | None = None
    """Width and height in pixels, of an image."""
    seconds: float | None = None
    """Of a sound."""


@dataclass(frozen=True)
class Work:
    """What a request that succeeded made. `find` gives the source behind a URL, None when it is unknown."""

    request: Request
    payload: Mapping[str, Any]
    find: Callable[[str], Source | None]

    @cached_property
    def profile(self) -> Profile:
        """The endpoint's habits."""
        return profile_of(self.request.endpoint)

    @cached_property
    def given(self) -> Mapping[str, Any]:
        """The input as the model reads it."""
        return arguments_of(self.profile, self.payload)

    @property
    def is_inline(self) -> bool:
        """Whether files are wanted as data URIs (fal-protocol §7.1)."""
        return bool(self.given.get("sync_mode"))

    @cached_property
    def seed(self) -> int:
        """The seed as asked, exact at any size, else one that the request id decides."""
        asked = self.given.get("seed")
        exact = None if asked is None else as_integer(asked)
        return number64("seed", self.request.id) if exact is None else exact

    @cached_property
    def prompt(self) -> str:
        """What is shown and said."""
        return str(self.given.get("prompt", ""))

    @cached_property
    def files(self) -> tuple[Medium, ...]:
        """The files that the request made, in the order of the output."""
        match self.profile.kind:
            case Kind.IMAGE:
                return tuple(self._left_of(self._pictures()))
            case Kind.VIDEO:
                return (self._clip(),)
            case Kind.SPEECH:
                return (Sound(self.prompt, self.given["voice"], float(self.given["speed"])),)
            case Kind.TRAINING:
                return self._training()
            case Kind.TEXT | Kind.TRANSCRIPT:
                return ()

    def path_of(self, place: int) -> str:
        """`b/<id>/<name>` of file `place`: the part of a CDN URL after `/files/` (fal-protocol §7.2)."""
        medium = self.files[place]
        mark = base64.b32encode(digest("file", self.request.id, place, size=10)).decode().lower()
        name = f"{mark}_{medium.name}" if medium.name else mark
        return f"b/{self.request.id.replace('-', '')}/{name}.{medium.extension}"

    def urls(self, origin: str) -> list[str]:
        """Where the files can be fetched, on the sandbox that the caller knows as `origin`."""
        return [f"{origin}/cdn/files/{self.path_of(place)}" for place in range(len(self.files))]

    def output(self, urls: Sequence[str]) -> dict[str, Any]:
        """The bare model output with its files under `urls`; of a model with a schema, exactly what that has."""
        if self._oddity is Do.EMPTY:
            return {}
        whole = self._all_members([self._file_object(place, url) for place, url in enumerate(urls)])
        model = model_of(self.profile.pattern)
        if model is None:
            shaped = {name: value for name, value in whole.items() if name in _PLAIN_MEMBERS[self.profile.kind]}
        else:
            shaped = _shaped(whole, plain_output(model))
        return {**shaped, "error": ODD_ERROR} if self._oddity is Do.ERROR_IN_RESULT else shaped

    def _all_members(self, files: list[dict[str, Any]]) -> dict[str, Any]:
        """More than any one model answers: what all models of the kind do."""
        match self.profile.kind:
            case Kind.IMAGE:
                return {
                    "images": [_plain_image(file) for file in files] if self._is_plain else files,
                    "image": files[0] if files else None,
                    "timings": {"inference": inference_s(self.request)},
                    "seed": self.seed,
                    "has_nsfw_concepts": [self._oddity is Do.NSFW] * len(files),
                    "prompt": self.given.get("prompt", ""),
                }
            case Kind.VIDEO:
                return {"video": files[0], "seed": self.seed}
            case Kind.SPEECH:
                return {"audio": files[0]}
            case Kind.TRAINING:
                lora, config = files
                return {"diffusers_lora_file": lora, "config_file": config, "debug_preprocessed_output": None}
            case Kind.TEXT:
                return self._answer()
            case Kind.TRANSCRIPT:
                return self._transcript()

    @property
    def _oddity(self) -> Do | None:
        return self.request.verdict.oddity

    def _left_of(self, pictures: list[Picture]) -> list[Picture]:
        """What is left of the pictures where the success is an odd one."""
        match self._oddity:
            case Do.EMPTY:
                return []
            case Do.FEWER:
                return pictures[:-1]
            case Do.NSFW | Do.BLACK:
                return [replace(picture, is_black=True) for picture in pictures]
            case _:
                return pictures

    @property
    def _is_plain(self) -> bool:
        """Whether nobody knows the endpoint's schema."""
        return model_of(self.profile.pattern) is None

    def _file_object(self, place: int, url: str) -> dict[str, Any]:
        """All that is known of a file; a size is left out when only drawing the file would tell."""
        medium = self.files[place]
        name = f"{medium.name}.{medium.extension}" if medium.name else self.path_of(place).rpartition("/")[2]
        file: dict[str, Any] = {"url": url, "content_type": medium.content_type, "file_name": name}
        if medium.size_bytes is not None:
            file["file_size"] = medium.size_bytes
        if isinstance(medium, Picture):
            file |= {"width": medium.width, "height": medium.height}
        return file

    def _source(self, name: str) -> Source | None:
        url = self.given.get(name)
        return self.find(url) if isinstance(url, str) else None

    def _pictures(self) -> list[Picture]:
        if "upscale_factor" in self.given and not self._is_plain:
            return [self._upscaled()]
        source = None if self._is_plain else self._source("image_url")
        asked = source.size if source else None
        width, height = asked or image_size(self.profile, self.given)
        # `format` means that only to models whose schemas say so.
        asked_format = self.given.get("output_format") or (not self._is_plain and self.given.get("format"))
        format_ = str(asked_format or "jpeg")
        count = image_count(self.given)
        return [Picture(self.prompt, str(self.seed), index, width, height, format_) for index in range(count)]

    def _upscaled(self) -> Picture:
        """The same picture again, only larger, when it is one of ours; else a new one of the multiplied size."""
        source, factor = self._source("image_url") or Source(), float(self.given["upscale_factor"])
        sides = source.size or image_size(self.profile, self.given)
        width, height = (min(MAX_SIDE, max(1, round(side * factor))) for side in sides)
        if isinstance(source.medium, Picture):
            return replace(source.medium, width=width, height=height, format="png")
        return Picture(self.prompt, str(self.seed), 0, width, height, "png")

    def _clip(self) -> Clip:
        source = self._source("image_url") or Source()
        short = min(_MOST_SHORT_SIDE, _SHORT_SIDES[self.given.get("resolution", "720p")] // 2)
        aspect = source.size or tuple(map(int, self.given.get("aspect_ratio", "16:9").split(":")))
        width, height = _frame(aspect[0] / aspect[1], short)
        scene = (self.prompt, str(self.seed), 0)
        if isinstance(source.medium, Picture):
            scene = (source.medium.prompt, source.medium.seed, source.medium.index)
        seconds = min(MAX_VIDEO_S, video_seconds(self.given))
        return Clip(
            self.prompt, str(self.seed), scene, width, height, seconds, bool(self.given.get("generate_audio", False))
        )

    def _training(self) -> tuple[Weights, Document]:
        steps, trigger = self.given.get("steps") or 1000, self.given.get("trigger_word") or ""
        config = json.dumps({**self.given, "request_id": self.request.id}, indent=2, sort_keys=True)
        return Weights(str(self.seed), str(trigger), int(steps)), Document(config, "config")

    def _answer(self) -> dict[str, Any]:
        seed = self.given.get("seed", self.request.id)
        text = wording.answer_text(self.prompt, seed, None if self._is_plain else self.given.get("max_tokens"))
        reasons = self.given.get("reasoning") is True
        return {
            "output": text,
            "reasoning": wording.reasoning_text(self.prompt) if reasons else None,
            "partial": False,
            "error": None,
            "usage": wording.usage(self.prompt, text, self.request.verdict.cost),
        }

    def _transcript(self) -> dict[str, Any]:
        """What was said: the very text, when the sound is speech of ours."""
        source = self._source("audio_url") or Source()
        seconds = source.seconds or audio_seconds(self.given)
        if isinstance(source.medium, Sound):
            return wording.transcript(source.medium.text, seconds, self.given)
        return wording.transcript(wording.spoken_text(self.given["audio_url"], seconds), seconds, self.given)


def inference_s(request: Request) -> float:
    """Seconds that the last attempt ran."""
    if request.started_at is None or request.ended_at is None:
        return 0.0
    return round(request.ended_at - request.started_at, 6)


_PLAIN_MEMBERS: Final[Mapping[Kind, frozenset[str]]] = {
    Kind.IMAGE: frozenset({"images", "timings", "seed", "has_nsfw_concepts", "prompt"}),
    Kind.TEXT: frozenset({"output", "reasoning", "partial", "error", "usage"}),
}
"""What an endpoint without a schema answers; those make pictures and text alone."""


def _plain_image(file: Mapping[str, Any]) -> dict[str, Any]:
    """As older models have it: four fields (fal-protocol §7.1)."""
    return {name: file[name] for name in ("url", "width", "height", "content_type")}


def _frame(aspect: float, short: int) -> tuple[int, int]:
    """Width and height of a video's frame, both even, as H.264 wants them."""
    aspect = min(_MOST_ASPECT, max(1 / _MOST_ASPECT, aspect))
    width, height = (short * aspect, short) if aspect >= 1 else (short, short / aspect)
    return 2 * round(width / 2), 2 * round(height / 2)


def _shaped(value: Any, schema: Mapping[str, Any]) -> Any:
    """`value` without the properties that the schema does not have, in its order."""
    for part in (*schema.get("allOf", ()), *schema.get("anyOf", ())):
        value = _shaped(value, part)
    if isinstance(value, dict) and "properties" in schema:
        return {name: _shaped(value[name], part) for name, part in schema["properties"].items() if name in value}
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [_shaped(entry, schema["items"]) for entry in value]
    return value
