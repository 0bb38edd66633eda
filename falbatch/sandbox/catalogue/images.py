"""Other models of images: Stable Diffusion, latent consistency, an upscaler."""

from __future__ import annotations

from typing import Final

from falbatch.sandbox.catalogue.fields import choice, flag, number, record, ref, text, whole
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

_NEGATIVE: Final = text(
    "Negative Prompt",
    "What the result should not show.",
    default="",
    examples=["cartoon, illustration, animation, face"],
)

_EXPAND: Final = flag("Expand Prompt", "If set, the prompt is expanded by a language model.", default=False)
_FORMAT: Final = output_format("jpeg") | {"title": "Format"}

_SDXL: Final = Model(
    "fal-ai/fast-sdxl",
    "Stable Diffusion XL",
    "text-to-image",
    "Runs SDXL at the speed of light.",
    input=record(
        "TextToImageInput",
        {
            "prompt": PROMPT | {"examples": ["photo of a rhino dressed in a suit, at a table in a bar"]},
            "negative_prompt": _NEGATIVE,
            "image_size": image_size("square_hd"),
            "num_inference_steps": steps(25, 50),
            "seed": SEED,
            "guidance_scale": guidance(7.5, 0, 20),
            "sync_mode": SYNC_MODE,
            "num_images": NUM_IMAGES | {"maximum": 8},
            "enable_safety_checker": SAFETY_CHECKER,
            "expand_prompt": flag(
                "Expand Prompt", "If set, the prompt is expanded by a language model.", default=False
            ),
            "format": output_format("jpeg") | {"title": "Format"},
        },
        ["prompt"],
    ),
    output=image_output("Output"),
    shared={"ImageSize": IMAGE_SIZE, "Image": IMAGE},
    tags=("diffusion",),
    date="2024-03-01T00:00:00.000Z",
)

_LCM: Final = Model(
    "fal-ai/fast-lcm-diffusion",
    "Latent Consistency (SDXL & SD v1.5)",
    "text-to-image",
    "Makes images in so few steps that a realtime connection can show them while one types.",
    input=record(
        "TextToImageLCMInput",
        {
            "model_name": choice(
                "Model Name",
                "The model to use.",
                ["stabilityai/stable-diffusion-xl-base-1.0", "runwayml/stable-diffusion-v1-5"],
                default="stabilityai/stable-diffusion-xl-base-1.0",
            ),
            "prompt": PROMPT | {"examples": ["a hyperdetailed photograph of a cat dressed in pyjamas"]},
            "negative_prompt": _NEGATIVE,
            "image_size": image_size("square_hd"),
            "num_inference_steps": steps(6, 32),
            "seed": SEED,
            "guidance_scale": guidance(1.5, 0, 20),
            # True at fal too: it is made for connections on which pictures are looked at and forgotten.
            "sync_mode": SYNC_MODE | {"default": True},
            "num_images": NUM_IMAGES | {"maximum": 8},
            "enable_safety_checker": SAFETY_CHECKER,
            "expand_prompt": _EXPAND,
            "format": _FORMAT,
        },
        ["prompt"],
    ),
    output=image_output("LCMOutput"),
    shared={"ImageSize": IMAGE_SIZE, "Image": IMAGE},
    tags=("diffusion", "lcm", "real-time"),
    date="2024-02-01T00:00:00.000Z",
    has_stream=True,
)

_CLARITY: Final = Model(
    "fal-ai/clarity-upscaler",
    "Clarity Upscaler",
    "image-to-image",
    "Upscales images with high fidelity.",
    input=record(
        "ClarityUpscalerInput",
        {
            "image_url": text(
                "Image URL",
                "The URL of the image to upscale.",
                examples=["https://storage.googleapis.com/falserverless/example_inputs/small_kite.png"],
            ),
            "prompt": text("Prompt", "What the result should look like.", default="masterpiece, best quality, highres"),
            "upscale_factor": number("Upscale Factor", "The upscale factor.", default=2, minimum=1, maximum=4),
            "negative_prompt": _NEGATIVE | {"default": "(worst quality, low quality, normal quality:2)"},
            "creativity": number("Creativity", "How far it may invent.", default=0.35, minimum=0, maximum=1),
            "resemblance": number("Resemblance", "How close it must stay.", default=0.6, minimum=0, maximum=1),
            "guidance_scale": guidance(4, 0, 20),
            "num_inference_steps": steps(18, 50) | {"minimum": 4},
            "seed": SEED,
            "enable_safety_checker": SAFETY_CHECKER,
        },
        ["image_url"],
    ),
    output=record(
        "ClarityUpscalerOutput",
        {
            "image": ref("Image", "Image", "The upscaled image."),
            "seed": whole("Seed", "The seed used to generate the image."),
            "timings": {"type": "object", "title": "Timings", "additionalProperties": {"type": "number"}},
        },
        ["image", "seed", "timings"],
    ),
    shared={"Image": IMAGE_FILE},
    tags=("upscaling",),
    date="2024-09-01T00:00:00.000Z",
)

MODELS: Final = (_SDXL, _LCM, _CLARITY)
