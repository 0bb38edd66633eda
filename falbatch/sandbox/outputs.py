"""What a request that succeeded answers, as a pure function of the request. Nothing is stored but the input."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox.endpoints import Kind, profile_of
from falbatch.sandbox.ids import chance, digest, number64
from falbatch.sandbox.validation import FORMATS, as_integer
from falbatch.sandbox.verdict import image_count, image_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falbatch.sandbox.requests import Request

_EXTENSIONS: Final[Mapping[str, str]] = {"jpeg": "jpg", "png": "png", "webp": "webp"}


@dataclass(frozen=True, slots=True)
class Picture:
    """One image to be drawn: equal values give equal bytes."""

    prompt: str
    seed: str
    """As shown on the picture; with `index` it decides what is drawn."""
    index: int
    """0-based among the images of one request."""
    width: int
    height: int
    format: str
    """A key of FORMATS."""

    @property
    def content_type(self) -> str:
        """`image/jpeg` and so on."""
        return FORMATS[self.format]

    @property
    def etag(self) -> str:
        """A strong validator, known before the picture is drawn."""
        parts = (self.prompt, self.seed, self.index, self.width, self.height, self.format)
        return f'"{digest(*parts).hex()}"'


def seed_of(request: Request, payload: Mapping[str, Any]) -> int:
    """The seed as asked, exact at any size, else one that the request id decides."""
    asked = payload.get("seed")
    exact = None if asked is None else as_integer(asked)
    return number64("seed", request.id) if exact is None else exact


def pictures(request: Request, payload: Mapping[str, Any]) -> list[Picture]:
    """The images that a valid request makes; none for a text endpoint."""
    profile = profile_of(request.endpoint)
    if profile.kind is not Kind.IMAGE:
        return []
    width, height = image_size(profile, payload)
    prompt, seed = str(payload.get("prompt", "")), str(seed_of(request, payload))
    format_ = str(payload.get("output_format", "jpeg"))
    return [Picture(prompt, seed, index, width, height, format_) for index in range(image_count(payload))]


def file_path(request: Request, picture: Picture) -> str:
    """`b/<id>/<name>`, the part of a CDN URL after `/files/` (fal-protocol §7.2)."""
    name = base64.b32encode(digest("file", request.id, picture.index, size=10)).decode().lower()
    return f"b/{request.id.replace('-', '')}/{name}.{_EXTENSIONS[picture.format]}"


def file_url(origin: str, request: Request, picture: Picture) -> str:
    """Where a picture can be fetched, on the sandbox that the caller knows as `origin`."""
    return f"{origin}/cdn/files/{file_path(request, picture)}"


def output(request: Request, payload: Mapping[str, Any], made: list[Picture], urls: list[str]) -> dict[str, Any]:
    """The bare model output of a request that succeeded, with its pictures and where they are, in one order."""
    if profile_of(request.endpoint).kind is Kind.TEXT:
        return _text_output(request, payload)
    images = [
        {"url": url, "width": picture.width, "height": picture.height, "content_type": picture.content_type}
        for url, picture in zip(urls, made, strict=True)
    ]
    return {
        "images": images,
        "timings": {"inference": inference_s(request)},
        "seed": seed_of(request, payload),
        "has_nsfw_concepts": [False] * len(images),
        "prompt": payload.get("prompt", ""),
    }


def inference_s(request: Request) -> float:
    """Seconds that the last attempt ran."""
    if request.started_at is None or request.ended_at is None:
        return 0.0
    return round(request.ended_at - request.started_at, 6)


_OPENINGS: Final = ("In short", "Seen from afar", "Looking closer", "To begin with", "As a rule")
_SUBJECTS: Final = ("the light", "the question", "a quiet pattern", "the detail", "every part of it")
_VERBS: Final = ("leads back to", "is held together by", "grows out of", "answers", "makes room for")


def _text_output(request: Request, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The shape of `fal-ai/any-llm` (fal-protocol §12)."""
    prompt = str(payload["prompt"])
    seed = payload.get("seed", request.id)
    sentences = [_sentence(prompt, seed, number) for number in range(3)]
    text = " ".join(sentences)
    tokens = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(text.split())}
    usage = {**tokens, "total_tokens": sum(tokens.values())}
    return {"output": text, "reasoning": None, "partial": False, "error": None, "usage": usage}


def _sentence(prompt: str, seed: object, number: int) -> str:
    def pick(words: tuple[str, ...], what: str) -> str:
        return words[int(chance(prompt, seed, number, what) * len(words))]

    topic = " ".join(prompt.split()[:6]) or "nothing"
    return f"{pick(_OPENINGS, 'opening')}, {pick(_SUBJECTS, 'subject')} {pick(_VERBS, 'verb')} “{topic}”."
