"""Which endpoints there are, how long they take, what they cost, and how an endpoint id is built.

The table is the one place where a model's habits live; its schemas are in `catalogue`, and each model there has a
row of its own here. Prices and durations are of the right order of magnitude, not quotes. Every id that no pattern
names is an image endpoint of about a second.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final

from falbatch.sandbox.ids import gauss

MISSING_ALIAS: Final = "does-not-exist"
"""An endpoint whose alias starts so is unknown to the sandbox: `fal-ai/does-not-exist` gives 404 at submit."""

_NAMESPACES: Final = frozenset({"workflows", "comfy"})
_LEGACY: Final = re.compile(r"([0-9]+)-([a-zA-Z0-9-]+)")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~@:+-]+")


class Kind(StrEnum):
    """What an endpoint makes."""

    IMAGE = "image"
    VIDEO = "video"
    SPEECH = "speech"
    """Sound, from text."""
    TRANSCRIPT = "transcript"
    """Text, from sound."""
    TEXT = "text"
    TRAINING = "training"
    """Weights, and how they came about."""


class Unit(StrEnum):
    """What is billed."""

    IMAGES = "images"
    MEGAPIXELS = "megapixels"
    """Of each image, rounded up."""
    REQUESTS = "requests"
    SECONDS = "seconds"
    """Of video at full price; half without sound, half more at 4k."""
    CHARACTERS = "1000 characters"
    """Of the text, as a fraction."""
    COMPUTE_SECONDS = "compute seconds"
    MINUTES = "minutes"
    """Of sound, begun ones included."""
    STEPS = "steps"


@dataclass(frozen=True, slots=True)
class Profile:
    """The habits of the endpoints that `pattern` (fnmatch, whole id) names."""

    pattern: str
    kind: Kind = Kind.IMAGE
    median_s: float = 1.0
    """Median service time in seconds."""
    spread: float = 0.25
    """Sigma of the log-normal service time: 0.25 keeps nine of ten within about ±50 %."""
    unit: Unit = Unit.IMAGES
    unit_price: float = 0.01
    """US dollars per unit."""
    size: str = "landscape_4_3"
    """Preset used when the input asks for no size."""


_MODELS: Final = (
    Profile("fal-ai/flux/dev", median_s=2.5, unit=Unit.MEGAPIXELS, unit_price=0.025),
    Profile("fal-ai/flux/schnell", median_s=0.4, unit=Unit.MEGAPIXELS, unit_price=0.003),
    Profile("fal-ai/flux-pro/v1.1", median_s=4.0, unit=Unit.MEGAPIXELS, unit_price=0.04),
    # By images, though the size of the result is known only from that of another file.
    Profile("fal-ai/flux/dev/image-to-image", median_s=3.0, unit_price=0.03),
    Profile("fal-ai/clarity-upscaler", median_s=8.0, unit_price=0.03),
    Profile("fal-ai/fast-sdxl", median_s=1.2, unit_price=0.0025, size="square_hd"),
    Profile("fal-ai/fast-lcm-diffusion", median_s=0.3, unit_price=0.001, size="square_hd"),
    Profile("fal-ai/kling-video/v2.6/pro/text-to-video", Kind.VIDEO, 60.0, unit=Unit.SECONDS, unit_price=0.14),
    Profile("fal-ai/kling-video/v2.5-turbo/pro/image-to-video", Kind.VIDEO, 50.0, unit=Unit.SECONDS, unit_price=0.07),
    Profile("fal-ai/veo3.1", Kind.VIDEO, 45.0, unit=Unit.SECONDS, unit_price=0.4),
    Profile("fal-ai/kokoro", Kind.SPEECH, 1.0, unit=Unit.CHARACTERS, unit_price=0.02),
    Profile("fal-ai/kokoro/american-english", Kind.SPEECH, 1.0, unit=Unit.CHARACTERS, unit_price=0.02),
    Profile("fal-ai/whisper", Kind.TRANSCRIPT, 3.0, unit=Unit.COMPUTE_SECONDS, unit_price=0.00111),
    Profile("fal-ai/wizper", Kind.TRANSCRIPT, 2.0, unit=Unit.MINUTES, unit_price=0.0005),
    Profile("openrouter/router", Kind.TEXT, 1.5, 0.4, unit=Unit.REQUESTS, unit_price=0.001),
    Profile("fal-ai/any-llm", Kind.TEXT, 1.5, 0.4, unit=Unit.REQUESTS, unit_price=0.001),
    Profile("fal-ai/flux-lora-fast-training", Kind.TRAINING, 120.0, unit=Unit.STEPS, unit_price=0.002),
)
"""Endpoints with schemas, each by its full id."""

PROFILES: Final = (
    *_MODELS,
    Profile("fal-ai/flux/schnell*", median_s=0.4, unit=Unit.MEGAPIXELS, unit_price=0.003),
    Profile("fal-ai/flux/dev*", median_s=2.5, unit=Unit.MEGAPIXELS, unit_price=0.025),
    Profile("fal-ai/flux-pro/v1.1-ultra*", median_s=6.0, unit_price=0.06),
    Profile("fal-ai/flux-pro/v1.1*", median_s=4.0, unit=Unit.MEGAPIXELS, unit_price=0.04),
    Profile("fal-ai/flux-pro*", median_s=4.0, unit=Unit.MEGAPIXELS, unit_price=0.05),
    Profile("fal-ai/flux-lora*", median_s=3.0, unit=Unit.MEGAPIXELS, unit_price=0.035),
    Profile("fal-ai/fast-sdxl*", median_s=1.2, unit_price=0.0025, size="square_hd"),
    Profile("fal-ai/recraft*", median_s=6.0, unit_price=0.04, size="square_hd"),
    Profile("fal-ai/ideogram*", median_s=7.0, unit_price=0.06, size="square_hd"),
    Profile("fal-ai/nano-banana*", median_s=8.0, unit_price=0.039, size="square_hd"),
    Profile("fal-ai/kling-video*", median_s=60.0, unit=Unit.REQUESTS, unit_price=0.35, size="landscape_16_9"),
    Profile("fal-ai/veo*", median_s=45.0, unit=Unit.REQUESTS, unit_price=1.6, size="landscape_16_9"),
    Profile("fal-ai/*video*", median_s=30.0, unit=Unit.REQUESTS, unit_price=0.2, size="landscape_16_9"),
    Profile("fal-ai/any-llm*", Kind.TEXT, median_s=1.5, spread=0.4, unit=Unit.REQUESTS, unit_price=0.001),
    Profile("openrouter/*", Kind.TEXT, median_s=1.5, spread=0.4, unit=Unit.REQUESTS, unit_price=0.001),
    Profile("*"),
)
"""First match wins."""


@dataclass(frozen=True, slots=True)
class EndpointId:
    """An endpoint id taken apart (fal-protocol §2)."""

    full: str
    """`fal-ai/flux/dev`: what is submitted to, priced and matched by patterns."""
    app: str
    """`[namespace/]owner/alias`: what status, result and cancel URLs are built from."""

    @property
    def exists(self) -> bool:
        """False for the aliases that the sandbox does not know on purpose."""
        return not self.app.rsplit("/", 1)[-1].startswith(MISSING_ALIAS)


@lru_cache(maxsize=4096)
def parse_endpoint(text: str) -> EndpointId | None:
    """Take `text` (no leading slash, a trailing one is ignored) apart; None when it is no endpoint id."""
    segments = text.rstrip("/").split("/")
    legacy = _LEGACY.fullmatch(segments[0])
    if legacy:
        segments[:1] = [legacy[1], legacy[2]]
    if not all(_SEGMENT.fullmatch(segment) for segment in segments):
        return None
    length = 3 if segments[0] in _NAMESPACES else 2
    if len(segments) < length:
        return None
    return EndpointId("/".join(segments), "/".join(segments[:length]))


@lru_cache(maxsize=4096)
def profile_of(endpoint: str) -> Profile:
    """The profile of a full endpoint id."""
    return next(profile for profile in PROFILES if fnmatchcase(endpoint, profile.pattern))


def service_s(median_s: float, spread: float, *place: object) -> float:
    """A log-normal service time in seconds, the same for the same `place`."""
    return median_s * math.exp(spread * gauss("service", *place))
