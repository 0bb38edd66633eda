"""Models of videos (fal-protocol §12). Durations are strings, and of two kinds."""

from __future__ import annotations

from typing import Final

from falbatch.sandbox.catalogue.fields import Schema, choice, flag, number, record, ref, text
from falbatch.sandbox.catalogue.model import Model
from falbatch.sandbox.catalogue.shared import FILE, SEED

_PROMPT: Final = text(
    "Prompt",
    "The text prompt describing the video.",
    maxLength=2500,
    examples=["A red kite circles over a harbour at dawn, slow camera, morning light."],
)
_NEGATIVE: Final = text(
    "Negative Prompt", "What the video should not show.", maxLength=2500, default="blur, distort, and low quality"
)
_SECONDS: Final = choice("Duration", "The duration of the video in seconds.", ["5", "10"], default="5")
_CFG: Final = number("Cfg Scale", "How closely the model sticks to the prompt.", default=0.5, minimum=0, maximum=1)


def _sound(*, default: bool) -> Schema:
    return flag("Generate Audio", "Whether the video has sound.", default=default)


def _output(title: str) -> Schema:
    return record(title, {"video": ref("File", "Video", "The generated video.")}, ["video"])


_KLING: Final = Model(
    "fal-ai/kling-video/v2.6/pro/text-to-video",
    "Kling Video v2.6 Text to Video",
    "text-to-video",
    "Cinematic videos with fluid motion and native sound.",
    input=record(
        "KlingVideoV26ProTextToVideoInput",
        {
            "prompt": _PROMPT,
            "duration": _SECONDS,
            "aspect_ratio": choice(
                "Aspect Ratio", "The shape of the video's frame.", ["16:9", "9:16", "1:1"], default="16:9"
            ),
            "negative_prompt": _NEGATIVE,
            "cfg_scale": _CFG,
            "generate_audio": _sound(default=True),
        },
        ["prompt"],
    ),
    output=_output("KlingVideoV26ProTextToVideoOutput"),
    shared={"File": FILE},
    tags=("motion", "audio"),
    group=("kling-video-v2.6", "Kling 2.6"),
    date="2025-12-03T00:00:00.000Z",
)

_KLING_IMAGE: Final = Model(
    "fal-ai/kling-video/v2.5-turbo/pro/image-to-video",
    "Kling Video v2.5 Turbo Image to Video",
    "image-to-video",
    "Sets an image in motion.",
    input=record(
        "KlingVideoV25TurboProImageToVideoInput",
        {
            "prompt": _PROMPT,
            "image_url": text(
                "Image Url",
                "The URL of the first frame.",
                examples=["https://storage.googleapis.com/falserverless/example_inputs/harbour.png"],
            ),
            "duration": _SECONDS,
            "negative_prompt": _NEGATIVE,
            "cfg_scale": _CFG,
            "tail_image_url": text("Tail Image Url", "The URL of the last frame.", nullable=True),
        },
        ["prompt", "image_url"],
    ),
    output=_output("KlingVideoV25TurboProImageToVideoOutput"),
    shared={"File": FILE},
    tags=("motion",),
    group=("kling-video-v2.5-turbo", "Kling 2.5 Turbo"),
    date="2025-09-23T00:00:00.000Z",
)

_VEO: Final = Model(
    "fal-ai/veo3.1",
    "Veo 3.1",
    "text-to-video",
    "Videos of up to 4k with sound.",
    input=record(
        "Veo31TextToVideoInput",
        {
            "prompt": _PROMPT | {"maxLength": 20_000},
            "aspect_ratio": choice("Aspect Ratio", "The shape of the video's frame.", ["16:9", "9:16"], default="16:9"),
            "duration": choice("Duration", "The duration of the video.", ["4s", "6s", "8s"], default="8s"),
            "negative_prompt": text("Negative Prompt", "What the video should not show.", nullable=True),
            "resolution": choice("Resolution", "The resolution of the video.", ["720p", "1080p", "4k"], default="720p"),
            "generate_audio": _sound(default=True),
            "seed": SEED,
            "auto_fix": flag("Auto Fix", "Whether to rewrite prompts that the content policy refuses.", default=True),
            "safety_tolerance": choice(
                "Safety Tolerance",
                "1 is the strictest and 6 the most permissive.",
                ["1", "2", "3", "4", "5", "6"],
                default="4",
            ),
        },
        ["prompt"],
    ),
    output=_output("Veo31TextToVideoOutput"),
    shared={"File": FILE},
    tags=("motion", "audio"),
    group=("veo3.1", "Veo 3.1"),
    date="2025-10-15T00:00:00.000Z",
)

MODELS: Final = (_KLING, _KLING_IMAGE, _VEO)
