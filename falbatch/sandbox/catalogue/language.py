"""Language models (fal-protocol §12)."""

from __future__ import annotations

from typing import Final

from falbatch.sandbox.catalogue.fields import Schema, choice, flag, number, record, ref, text, whole
from falbatch.sandbox.catalogue.model import Model

_STORY: Final = "Write a short story about an AI that learns to dream."
_NAMES: Final = ["google/gemini-2.5-flash", "anthropic/claude-sonnet-4.5", "openai/gpt-4.1"]

_USAGE: Final = record(
    "UsageInfo",
    {
        "prompt_tokens": whole("Prompt Tokens", "Tokens of the prompt."),
        "completion_tokens": whole("Completion Tokens", "Tokens of the answer."),
        "total_tokens": whole("Total Tokens", "Both."),
        "cost": number("Cost", "US dollars."),
    },
    ["total_tokens", "cost"],
)


def _input(title: str, model: Schema, *, required: list[str], extra: dict[str, Schema] | None = None) -> Schema:
    return record(
        title,
        {
            "prompt": text("Prompt", "The prompt of the chat completion.", examples=[_STORY]),
            "system_prompt": text("System Prompt", "Context or instructions for the model.", nullable=True),
            "model": model,
            "reasoning": flag("Reasoning", "Whether reasoning is part of the answer.", default=False),
            "temperature": number("Temperature", "Variety of the answers.", default=1, minimum=0, maximum=2),
            "max_tokens": whole("Max Tokens", "Most tokens of the answer.", nullable=True, minimum=1),
            **(extra or {}),
        },
        required,
    )


def _output(title: str) -> Schema:
    return record(
        title,
        {
            "output": text("Output", "Generated output"),
            "reasoning": text("Reasoning", "Generated reasoning for the output", nullable=True),
            "partial": flag("Partial", "Whether the output is partial", default=False),
            "error": text("Error", "Error message if an error occurred", nullable=True),
            "usage": ref("UsageInfo", "Usage", "Token usage information", nullable=True),
        },
        ["output"],
    )


_ROUTER: Final = Model(
    "openrouter/router",
    "OpenRouter",
    "llm",
    "Any language model through one endpoint.",
    input=_input(
        "ChatInput",
        text("Model", "Name of the model to use.", examples=_NAMES),
        required=["prompt", "model"],
    ),
    output=_output("ChatOutput"),
    shared={"UsageInfo": _USAGE},
    tags=("chat", "llm"),
    date="2025-11-01T00:00:00.000Z",
    has_stream=True,
)

_ANY: Final = Model(
    "fal-ai/any-llm",
    "Any LLM",
    "llm",
    "Language models of many makers. Use openrouter/router instead.",
    input=_input(
        "ChatInput",
        text("Model", "Name of the model to use.", default=_NAMES[0], examples=_NAMES),
        required=["prompt"],
        extra={
            "priority": choice("Priority", "What to optimise for.", ["throughput", "latency"], default="latency"),
        },
    ),
    output=_output("ChatOutput"),
    shared={"UsageInfo": _USAGE},
    tags=("chat", "llm"),
    date="2024-06-01T00:00:00.000Z",
    is_deprecated=True,
    has_stream=True,
)

MODELS: Final = (_ROUTER, _ANY)
