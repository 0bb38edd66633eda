"""Trainings (fal-protocol §12)."""

from __future__ import annotations

from typing import Final

from falbatch.sandbox.catalogue.fields import flag, record, ref, text, whole
from falbatch.sandbox.catalogue.model import Model
from falbatch.sandbox.catalogue.shared import FILE

_FLUX_LORA: Final = Model(
    "fal-ai/flux-lora-fast-training",
    "Train Flux LoRA",
    "training",
    "Trains a LoRA of FLUX.1 [dev] on some images.",
    input=record(
        "PublicInput",
        {
            "images_data_url": text(
                "Images Data Url",
                "URL of a zip archive with images, at least 4 as a rule; captions in text files of the same names.",
                examples=["https://storage.googleapis.com/falserverless/example_inputs/images.zip"],
                **{"x-fal": {"timeout": 600.0}},
            ),
            "trigger_word": text("Trigger Word", "Stands for the subject in captions.", nullable=True),
            "create_masks": flag("Create Masks", "Whether faces weigh more, by segmentation masks.", default=True),
            "steps": whole(
                "Steps", "Steps to train.", default=1000, minimum=1, maximum=10_000, examples=[500], nullable=True
            ),
            "is_style": flag("Is Style", "Whether the training is for a style.", default=False),
            "is_input_format_already_preprocessed": flag(
                "Is Input Format Already Preprocessed", "Whether the archive is preprocessed already.", default=False
            ),
            "data_archive_format": text(
                "Data Archive Format",
                "Format of the archive; found out by its URL when it is not given.",
                nullable=True,
            ),
            "resume_from_checkpoint": text("Resume From Checkpoint", "URL of a checkpoint to go on from.", default=""),
        },
        ["images_data_url"],
    ),
    output=record(
        "Output",
        {
            "diffusers_lora_file": ref("File", "Diffusers Lora File", "URL to the trained diffusers lora weights."),
            "config_file": ref("File", "Config File", "URL to the training configuration file."),
            "debug_preprocessed_output": ref(
                "File", "Debug Preprocessed Output", "URL to the preprocessed images.", nullable=True
            ),
        },
        ["diffusers_lora_file", "config_file"],
    ),
    shared={"File": FILE},
    tags=("lora", "personalization"),
    group=("flux-1", "FLUX.1"),
    date="2024-09-10T00:00:00.000Z",
    is_training=True,
    trained_for=("fal-ai/flux-lora",),
)

MODELS: Final = (_FLUX_LORA,)
