"""The FLUX family (fal-protocol §12)."""

from __future__ import annotations

from typing import Final

from falbatch.sandbox.catalogue.fields import Schema, choice, flag, number, record, text
from falbatch.sandbox.catalogue.model import Model
from falbatch.sandbox.catalogue.shared import (
    IMAGE,
    IMAGE_FILE,
    IMAGE_SIZE,
    NUM_IMAGES,
    PROMPT,
    SAFETY_CHECKER,
    SEED,
    SYNC_MODE,
    guidance,
    image_output,
    image_size,
    output_format,
    steps,
)

_KITE: Final = "Extreme close-up of a single tiger eye, direct frontal view, detailed iris and pupil."


def _prompt(example: str = _KITE) -> Schema:
    return PROMPT | {"examples": [example]}


def _acceleration(default: str) -> Schema:
    what = "The speed of the generation. The higher the speed, the faster the generation."
    return choice("Acceleration", what, ["none", "regular", "high"], default=default)


_GROUP: Final = ("flux-1", "FLUX.1")

_DEV: Final = Model(
    "fal-ai/flux/dev",
    "FLUX.1 [dev]",
    "text-to-image",
    "A 12 billion parameter flow transformer that makes images from text, for personal and commercial use.",
    input=record(
        "DevTextToImageInput",
        {
            "prompt": _prompt(),
            "image_size": image_size("landscape_4_3"),
            "num_inference_steps": steps(28, 50),
            "seed": SEED,
            "guidance_scale": guidance(3.5, 1, 20),
            "sync_mode": SYNC_MODE,
            "num_images": NUM_IMAGES,
            "enable_safety_checker": SAFETY_CHECKER,
            "output_format": output_format("jpeg"),
            "acceleration": _acceleration("none"),
        },
        ["prompt"],
    ),
    output=image_output("DevTextToImageOutput"),
    shared={"ImageSize": IMAGE_SIZE, "Image": IMAGE},
    tags=("flux", "lora", "realism"),
    group=_GROUP,
    has_stream=True,
)

_SCHNELL: Final = Model(
    "fal-ai/flux/schnell",
    "FLUX.1 [schnell]",
    "text-to-image",
    "A 12 billion parameter flow transformer that makes images from text in 1 to 4 steps.",
    input=record(
        "SchnellTextToImageInput",
        {
            "prompt": _prompt(),
            "image_size": image_size("landscape_4_3"),
            "num_inference_steps": steps(4, 12),
            "seed": SEED,
            "guidance_scale": guidance(3.5, 1, 20),
            "sync_mode": SYNC_MODE,
            "num_images": NUM_IMAGES,
            "enable_safety_checker": SAFETY_CHECKER,
            "output_format": output_format("jpeg"),
            "acceleration": _acceleration("none"),
        },
        ["prompt"],
    ),
    output=image_output("SchnellTextToImageOutput"),
    shared={"ImageSize": IMAGE_SIZE, "Image": IMAGE},
    tags=("flux", "turbo"),
    group=_GROUP,
    has_stream=True,
)

_PRO: Final = Model(
    "fal-ai/flux-pro/v1.1",
    "FLUX1.1 [pro]",
    "text-to-image",
    "An enhanced version of FLUX.1 [pro] with better composition, detail and prompt adherence.",
    input=record(
        "FluxProPlusTextToImageInput",
        {
            "prompt": _prompt("A lighthouse in a storm, oil on canvas, waves as high as its lamp."),
            "image_size": image_size("landscape_4_3"),
            "seed": SEED,
            "sync_mode": SYNC_MODE,
            "num_images": NUM_IMAGES,
            "output_format": output_format("jpeg"),
            "safety_tolerance": choice(
                "Safety Tolerance",
                "1 is the strictest and 6 the most permissive.",
                ["1", "2", "3", "4", "5", "6"],
                default="2",
            ),
            "enhance_prompt": flag(
                "Enhance Prompt", "Whether to rewrite the prompt for better results.", default=False
            ),
        },
        ["prompt"],
    ),
    output=image_output("FluxProOutput"),
    shared={"ImageSize": IMAGE_SIZE, "Image": IMAGE_FILE},
    tags=("flux", "pro"),
    group=("flux-pro", "FLUX.1 [pro]"),
    date="2024-10-03T00:00:00.000Z",
)

_EDIT: Final = Model(
    "fal-ai/flux/dev/image-to-image",
    "FLUX.1 [dev] image to image",
    "image-to-image",
    "Changes an image by a prompt; the result has the size of the input.",
    input=record(
        "DevImageToImageInput",
        {
            "image_url": text(
                "Image Url",
                "The URL of the image to start from.",
                examples=["https://storage.googleapis.com/falserverless/example_inputs/lighthouse.jpg"],
            ),
            "strength": number(
                "Strength", "How far the result may go from the image.", default=0.95, minimum=0.01, maximum=1
            ),
            "num_inference_steps": steps(40, 50) | {"minimum": 10},
            "prompt": _prompt("a lighthouse wearing a scarf, snow, pixel art"),
            "seed": SEED,
            "guidance_scale": guidance(3.5, 1, 20),
            "sync_mode": SYNC_MODE,
            "num_images": NUM_IMAGES,
            "enable_safety_checker": SAFETY_CHECKER,
            "output_format": output_format("jpeg"),
            "acceleration": _acceleration("none"),
        },
        ["image_url", "prompt"],
    ),
    output=image_output("DevImageToImageOutput"),
    shared={"Image": IMAGE},
    tags=("flux", "editing"),
    group=_GROUP,
)

MODELS: Final = (_DEV, _SCHNELL, _PRO, _EDIT)
