"""Schemas that many models share: files, image sizes, and the fields that go with images."""

from __future__ import annotations

from typing import Final

from falbatch.sandbox.catalogue.fields import Schema, choice, flag, listed, number, record, ref, text, whole
from falbatch.sandbox.validation import MAX_IMAGES, MAX_SIDE, PRESETS

_URL: Final = text("Url", "The URL where the file can be downloaded from.")
_FILE_FIELDS: Final = {
    "url": _URL,
    "content_type": text("Content Type", "The mime type of the file.", nullable=True, examples=["image/png"]),
    "file_name": text("File Name", "The name of the file.", nullable=True, examples=["z9RV14K95DvU.png"]),
    "file_size": whole("File Size", "The size of the file in bytes.", nullable=True, examples=[4404019]),
    "file_data": text("File Data", "File data", nullable=True, format="binary"),
}
_SIDES: Final = {
    "width": whole("Width", "The width of the image in pixels.", nullable=True, examples=[1024]),
    "height": whole("Height", "The height of the image in pixels.", nullable=True, examples=[1024]),
}

FILE: Final = record("File", _FILE_FIELDS, ["url"])
"""A file of a newer model (fal-protocol §7.1)."""

IMAGE_FILE: Final = record("Image", _FILE_FIELDS | _SIDES, ["url"], "Represents an image file.")
"""An image of a newer model."""

IMAGE: Final = record(
    "Image",
    {
        "url": _URL,
        "width": whole("Width", "The width of the image in pixels.", default=512),
        "height": whole("Height", "The height of the image in pixels.", default=512),
        "content_type": text("Content Type", "The mime type of the file.", default="image/jpeg"),
    },
    ["url"],
)
"""An image of an older model: four fields, no more (fal-protocol §7.1)."""

IMAGE_SIZE: Final = record(
    "ImageSize",
    {
        side: whole(
            side.title(), f"The {side} of the generated image.", default=512, exclusiveMinimum=0, maximum=MAX_SIDE
        )
        for side in ("width", "height")
    },
)

PROMPT: Final = text("Prompt", "The prompt to generate an image from.")
SEED: Final = whole("Seed", "The same seed and the same prompt give the same result every time.", nullable=True)
SYNC_MODE: Final = flag(
    "Sync Mode", "If set, the media comes back as a data URI and is not kept in the request history.", default=False
)
SAFETY_CHECKER: Final = flag("Enable Safety Checker", "If set, the safety checker is enabled.", default=True)
NUM_IMAGES: Final = whole("Num Images", "The number of images to generate.", default=1, minimum=1, maximum=MAX_IMAGES)


def image_size(default: str) -> Schema:
    """A preset's name, or width and height."""
    return {
        "anyOf": [ref("ImageSize"), {"enum": [*PRESETS], "type": "string"}],
        "title": "Image Size",
        "description": "The size of the generated image.",
        "default": default,
        "nullable": True,
        "examples": [default],
    }


def steps(default: int, most: int) -> Schema:
    """Inference steps."""
    return whole(
        "Num Inference Steps", "The number of inference steps to perform.", default=default, minimum=1, maximum=most
    )


def guidance(default: float, least: float, most: float) -> Schema:
    """Guidance scale."""
    what = "How closely the model sticks to the prompt."
    return number("Guidance Scale (CFG)", what, default=default, minimum=least, maximum=most)


def output_format(default: str) -> Schema:
    """The formats of images that most models have."""
    return choice("Output Format", "The format of the generated image.", ["jpeg", "png"], default=default)


def image_output(title: str) -> Schema:
    """What models of images answer (fal-protocol §12); needs `Image` among the shared schemas."""
    nsfw = {"type": "boolean"}
    return record(
        title,
        {
            "images": listed("Images", "The generated image files.", ref("Image")),
            "timings": {"type": "object", "title": "Timings", "additionalProperties": {"type": "number"}},
            "seed": whole("Seed", "Seed of the generated image: the one given, or the one that was drawn."),
            "has_nsfw_concepts": listed("Has Nsfw Concepts", "Whether the images contain NSFW concepts.", nsfw),
            "prompt": text("Prompt", "The prompt used for generating the image."),
        },
        ["images", "timings", "seed", "has_nsfw_concepts", "prompt"],
    )
