"""Every model with a schema, by its full endpoint id. Other ids are endpoints too, but nobody knows their schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from falbatch.sandbox.catalogue import audio, flux, images, language, training, video

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falbatch.sandbox.catalogue.model import Model

_FAMILIES: Final = (flux, images, video, audio, language, training)

MODELS: Final[Mapping[str, Model]] = {model.endpoint: model for family in _FAMILIES for model in family.MODELS}
"""In the order of families."""


def model_of(endpoint: str) -> Model | None:
    """The model behind a full endpoint id, or None."""
    return MODELS.get(endpoint)
