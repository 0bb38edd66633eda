"""Speech, after a fashion: a note for each letter, a rest for each space. WAV, 24 kHz, mono, 16 bits."""

from __future__ import annotations

import math
import wave
from array import array
from functools import lru_cache
from io import BytesIO
from typing import Final

from falbatch.sandbox.ids import digest

SAMPLE_RATE: Final = 24_000
"""Samples a second: what text-to-speech models give."""
SAMPLE_BYTES: Final = 2
HEADER_BYTES: Final = 44

MAX_S: Final = 120.0
"""Longer texts are cut off there: 5.8 MB are enough for a test."""

_LETTER_S: Final = 0.07
"""Fourteen letters a second, as people speak."""
_RESTS: Final = {",": 3, ";": 3, ":": 3, ".": 5, "!": 5, "?": 5, "\n": 6}
"""Letters' time that a mark takes; all other characters take one."""

_SCALE: Final = (0, 2, 4, 7, 9, 12, 14, 16)
"""Semitones of the notes above the voice's lowest: pentatonic, so that any text sounds well."""
_HARMONICS: Final = ((1, 0.6), (2, 0.25), (3, 0.1), (4, 0.05))
_LOUDNESS: Final = 9_000
"""Of 32767: no harm to headphones."""


def sample_count(text: str, speed: float) -> int:
    """Samples in the recording of `text`; at least a letter's."""
    units = sum(_RESTS.get(letter, 1) for letter in text) or 1
    return min(units * _unit(speed), int(MAX_S * SAMPLE_RATE))


def samples(text: str, voice: str, speed: float) -> bytes:
    """The recording: little-endian 16-bit samples."""
    unit, total = _unit(speed), sample_count(text, speed)
    lowest = 120 * 2 ** (digest(voice, size=1)[0] % 12 / 12)
    if voice.startswith("af"):
        lowest *= 1.5
    made, count = [], 0
    for letter in text:
        length = _RESTS.get(letter, 1) * unit
        is_note = letter.isalnum()
        made.append(_note(lowest, ord(letter) % len(_SCALE), unit) if is_note else bytes(SAMPLE_BYTES * length))
        count += length
        if count >= total:
            break
    whole = b"".join(made)[: SAMPLE_BYTES * total]
    return whole.ljust(SAMPLE_BYTES * total, b"\0")


def record_speech(text: str, voice: str, speed: float) -> bytes:
    """The WAV file."""
    buffer = BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(SAMPLE_BYTES)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples(text, voice, speed))
    return buffer.getvalue()


def _unit(speed: float) -> int:
    """Samples of a letter."""
    return max(1, round(_LETTER_S * SAMPLE_RATE / speed))


@lru_cache(maxsize=64)
def _note(lowest: float, step: int, length: int) -> bytes:
    """One letter's sound; a text has few different ones, so long texts cost no more than short ones."""
    pace = math.tau * lowest * 2 ** (_SCALE[step] / 12) / SAMPLE_RATE
    fade = max(1, length // 6)
    values = array("h")
    for place in range(length):
        envelope = min(1.0, place / fade, (length - place) / fade)
        level = sum(weight * math.sin(pace * order * place) for order, weight in _HARMONICS)
        values.append(int(_LOUDNESS * envelope * level))
    return values.tobytes()
