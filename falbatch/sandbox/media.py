"""The files that requests make, as values: what a file shows decides its bytes. Nothing is drawn here.

Equal values give equal bytes, so a file is named, compared and resumed without being kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from falbatch.sandbox.ids import digest
from falbatch.sandbox.recording import speech
from falbatch.sandbox.recording.weights import weights_size

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMATS: Final[Mapping[str, str]] = {"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
"""`output_format` → content type."""

_EXTENSIONS: Final[Mapping[str, str]] = {"jpeg": "jpg", "png": "png", "webp": "webp"}


@dataclass(frozen=True, slots=True)
class Medium(ABC):
    """One file to be made. The base of all kinds."""

    @property
    @abstractmethod
    def content_type(self) -> str:
        """`image/jpeg` and so on."""

    @property
    @abstractmethod
    def extension(self) -> str:
        """Without the dot."""

    @property
    def name(self) -> str:
        """A name that belongs to this kind of file, without its extension; empty for a drawn one."""
        return ""

    @property
    def size_bytes(self) -> int | None:
        """The true size, None when only drawing the file would tell."""
        return None

    @property
    def etag(self) -> str:
        """A strong validator, known before the file is drawn."""
        parts = [getattr(self, field.name) for field in fields(self)]
        return f'"{digest(type(self).__name__, *parts).hex()}"'


@dataclass(frozen=True, slots=True)
class Picture(Medium):
    """An image."""

    prompt: str
    seed: str
    """As shown on the picture; with `index` it decides what is drawn."""
    index: int
    """0-based among the images of one request."""
    width: int
    height: int
    format: str
    """A key of FORMATS."""
    is_black: bool = False
    """Nothing is drawn: what a safety checker leaves of a picture."""

    @property
    def content_type(self) -> str:
        """`image/jpeg` and so on."""
        return FORMATS[self.format]

    @property
    def extension(self) -> str:
        """`jpg`, `png` or `webp`."""
        return _EXTENSIONS[self.format]


@dataclass(frozen=True, slots=True)
class Clip(Medium):
    """An MP4 video, H.264, with a soundtrack in AAC if it has sound."""

    prompt: str
    seed: str
    """Both as shown."""
    scene: tuple[str, str, int]
    """Prompt, seed and index of the picture that is set in motion."""
    width: int
    """Of the frames, in pixels; even."""
    height: int
    seconds: float
    has_sound: bool

    @property
    def content_type(self) -> str:
        """Always MP4."""
        return "video/mp4"

    @property
    def extension(self) -> str:
        """Always MP4."""
        return "mp4"


@dataclass(frozen=True, slots=True)
class Sound(Medium):
    """A WAV file in which `text` is spoken, after a fashion: a note for each letter."""

    text: str
    voice: str
    speed: float

    @property
    def content_type(self) -> str:
        """Always WAV."""
        return "audio/wav"

    @property
    def extension(self) -> str:
        """Always WAV."""
        return "wav"

    @property
    def size_bytes(self) -> int:
        """Header and samples."""
        return speech.HEADER_BYTES + speech.SAMPLE_BYTES * speech.sample_count(self.text, self.speed)

    @property
    def seconds(self) -> float:
        """Its length."""
        return speech.sample_count(self.text, self.speed) / speech.SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Weights(Medium):
    """What a training made: a small LoRA in the format of safetensors."""

    seed: str
    trigger: str
    steps: int

    @property
    def content_type(self) -> str:
        """There is no better one."""
        return "application/octet-stream"

    @property
    def extension(self) -> str:
        """Of the format."""
        return "safetensors"

    @property
    def name(self) -> str:
        """The name that diffusers gives."""
        return "pytorch_lora_weights"

    @property
    def size_bytes(self) -> int:
        """Header and tensors."""
        return weights_size(self.trigger, self.steps)


@dataclass(frozen=True, slots=True)
class Document(Medium):
    """A JSON file."""

    text: str
    """All of it."""
    stem: str
    """Its name without the extension."""

    @property
    def content_type(self) -> str:
        """Always JSON."""
        return "application/json"

    @property
    def extension(self) -> str:
        """Always JSON."""
        return "json"

    @property
    def name(self) -> str:
        """As given."""
        return self.stem

    @property
    def size_bytes(self) -> int:
        """In UTF-8."""
        return len(self.text.encode("utf-8", "replace"))
