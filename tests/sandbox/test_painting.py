"""Pictures: every motif in every shape, the same for the same seed, and quick enough to be drawn on demand."""

from __future__ import annotations

from io import BytesIO
from random import Random
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from falbatch.sandbox.media import Picture
from falbatch.sandbox.painting.frame import MOTIFS, draw_file, draw_image, fit, wrap
from falbatch.sandbox.painting.palettes import PALETTES, along

if TYPE_CHECKING:
    from falbatch.sandbox.painting.frame import Motif

SIZES = [(1, 1), (1, 90), (90, 1), (7, 5), (97, 200), (256, 256), (300, 1200)]


@pytest.mark.parametrize("motif", MOTIFS, ids=lambda motif: motif.__name__)
@pytest.mark.parametrize("size", SIZES)
def test_every_motif_fits_every_size(motif: Motif, size: tuple[int, int]) -> None:
    for seed in range(3):
        image = motif(Random(seed), *size, PALETTES[seed])
        assert (image.size, image.mode) == (size, "RGB")


@pytest.mark.parametrize("motif", MOTIFS, ids=lambda motif: motif.__name__)
def test_no_motif_is_a_flat_area(motif: Motif) -> None:
    for seed in range(4):
        image = motif(Random(seed), 256, 192, PALETTES[seed * 3])
        assert len(image.getcolors(256 * 192) or ()) > 20


def test_sizes_are_exact_on_every_path_to_a_picture() -> None:
    for size in [(641, 479), (2001, 1001), (4100, 2050)]:
        assert draw_image(Picture("a", "1", 0, *size, "jpeg")).size == size


def test_prompt_seed_and_index_each_change_the_picture() -> None:
    base = Picture("a kite", "1", 0, 120, 100, "png")
    variants = [base, Picture("a kit", "1", 0, 120, 100, "png"), Picture("a kite", "2", 0, 120, 100, "png")]
    variants.append(Picture("a kite", "1", 1, 120, 100, "png"))
    assert len({draw_file(picture) for picture in variants}) == 4
    assert len({picture.etag for picture in variants}) == 4
    assert draw_file(base) == draw_file(Picture("a kite", "1", 0, 120, 100, "png"))


@pytest.mark.parametrize("prompt", ["", " ", "日本語のプロンプト", "a" * 5000, "x\n\n\ty", "\ud800", "word " * 300])
def test_any_prompt_can_be_written_on_it(prompt: str) -> None:
    image = Image.open(BytesIO(draw_file(Picture(prompt, "9" * 40, 0, 200, 150, "png"))))
    assert image.size == (200, 150)


def test_a_text_is_wrapped_at_words_and_ends_in_an_ellipsis() -> None:
    assert wrap("one two three four", lambda text: len(text) <= 9, 2) == ["one two", "three …"]
    assert wrap("one two", lambda text: len(text) <= 9, 2) == ["one two"]
    assert wrap("", lambda _: True, 2) == []
    assert fit("abcdefgh", lambda text: len(text) <= 5) == "abc …"


def test_colours_run_from_the_first_stop_to_the_last() -> None:
    stops = ((0, 0, 0), (100, 100, 100), (200, 0, 0))
    assert [along(stops, share) for share in (-1, 0, 0.25, 0.5, 1, 2)] == [
        (0, 0, 0),
        (0, 0, 0),
        (50, 50, 50),
        (100, 100, 100),
        (200, 0, 0),
        (200, 0, 0),
    ]
