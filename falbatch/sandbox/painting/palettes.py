"""Colours that go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

Colour = tuple[int, int, int]
"""Red, green, blue in 0…255."""


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of one picture."""

    sky: tuple[Colour, ...]
    """From the top of the sky, or the dark end, to the horizon, or the light end; at least three."""
    glow: Colour
    """Sun, moon, light."""
    ink: Colour
    """The nearest, darkest things."""
    accent: Colour
    """Used sparingly."""


def _palette(sky: str, glow: str, ink: str, accent: str) -> Palette:
    return Palette(tuple(map(from_hex, sky.split())), from_hex(glow), from_hex(ink), from_hex(accent))


def from_hex(text: str) -> Colour:
    """`f2a65a` → (242, 166, 90)."""
    return int(text[0:2], 16), int(text[2:4], 16), int(text[4:6], 16)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """From `first` at 0 to `second` at 1."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def along(stops: tuple[Colour, ...], share: float) -> Colour:
    """The colour at `share`, 0…1, of a row of stops at equal distances."""
    place = min(max(share, 0.0), 1.0) * (len(stops) - 1)
    index = min(int(place), len(stops) - 2)
    return mix(stops[index], stops[index + 1], place - index)


PALETTES: Final = (
    _palette("1b1f3b 53354a 903749 e84545 f9a26c", "ffe3b3", "14142b", "ffd36e"),  # ember dusk
    _palette("0f2027 203a43 2c5364 5d8a94 c8d8c4", "fdf6d8", "0a171c", "f2b880"),  # northern lake
    _palette("2b2d5b 5a4e8c 9b72aa d8a1c4 ffd9da", "fff4e6", "1d1e3d", "ffb4a2"),  # lilac evening
    _palette("12343b 2d545e 6f8f83 c89666 e1b382", "fff1cf", "0c2429", "f4845f"),  # desert and teal
    _palette("0b132b 1c2541 3a506b 5bc0be bff0e6", "f6fff8", "080d1e", "ffd166"),  # arctic mint
    _palette("3d0e61 7b2d8b c7417b f5915e ffd86b", "fff7d6", "230838", "ffe66d"),  # synth sunset
    _palette("264653 2a9d8f 8ab17d e9c46a f4a261", "fff3c4", "172b33", "e76f51"),  # coast road
    _palette("355070 6d597a b56576 e56b6f eaac8b", "ffe5d0", "202f44", "ffd6a5"),  # rose dust
    _palette("004e64 0093a5 25a18e 7ae582 d4f7c5", "fbffe4", "00303d", "ffcb69"),  # lagoon
    _palette("2f3e46 52796f 84a98c b9cdb3 eef2e2", "fffdf0", "1c262b", "e8a87c"),  # pine mist
    _palette("10002b 3c096c 7b2cbf c77dff f3d9ff", "fff0ff", "0a001c", "ffafcc"),  # violet night
    _palette("6b2737 a23e48 e07a5f f2b36e f6e2b3", "fffaea", "3a1420", "81b29a"),  # terracotta
)
