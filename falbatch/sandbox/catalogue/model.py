"""What the sandbox knows of one model, and its schemas as plain JSON Schema."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from falbatch.sandbox.catalogue.fields import REF, Schema

if TYPE_CHECKING:
    from collections.abc import Mapping

_WORD = re.compile(r"[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One endpoint with a schema. Compared by identity: there is one of each."""

    endpoint: str
    """Full id."""
    display_name: str
    category: str
    """fal's word: `text-to-image`, `image-to-video` …"""
    description: str
    input: Schema
    output: Schema
    shared: Mapping[str, Schema] = field(default_factory=dict)
    """Schemas that input and output refer to, by name."""
    tags: tuple[str, ...] = ()
    group: tuple[str, str] | None = None
    """Key and label of the family it is shown with."""
    date: str = "2024-08-01T00:00:00.000Z"
    """When it came to fal's list; also the time of its last change. ISO 8601, UTC."""
    is_deprecated: bool = False
    is_training: bool = False
    trained_for: tuple[str, ...] = ()
    """Endpoints that use what a training makes."""
    has_stream: bool = False

    @property
    def name(self) -> str:
        """The id without its owner in one word, as fal names schemas: `FluxDev`."""
        words = _WORD.findall(self.endpoint.partition("/")[2])
        return "".join(word[:1].upper() + word[1:] for word in words)

    @property
    def example(self) -> dict[str, Any]:
        """An input from the examples in the schema: what is required, and what has an example."""
        properties = self.input["properties"]
        return {name: one["examples"][0] for name, one in properties.items() if one.get("examples")}


@lru_cache(maxsize=128)
def plain_input(model: Model) -> Schema:
    """The input as plain JSON Schema (2020-12): references put in place, `nullable` said in its words."""
    return plain(model.input, model.shared)


@lru_cache(maxsize=128)
def plain_output(model: Model) -> Schema:
    """The output likewise."""
    return plain(model.output, model.shared)


def plain(schema: Schema, shared: Mapping[str, Schema]) -> Schema:
    """A schema of OpenAPI 3.0 as plain JSON Schema; `shared` is what it refers to."""
    if "$ref" in schema:
        return plain(shared[schema["$ref"].removeprefix(REF)], shared)
    made = {key: _plain_part(key, value, shared) for key, value in schema.items() if key != "nullable"}
    if not schema.get("nullable"):
        return made
    if "anyOf" in made:
        return {**made, "anyOf": [*made["anyOf"], {"type": "null"}]}
    if "enum" in made:
        made["enum"] = [*made["enum"], None]
    if "type" in made:
        return {**made, "type": [made["type"], "null"]}
    return {"anyOf": [made, {"type": "null"}]}


def _plain_part(key: str, value: Any, shared: Mapping[str, Schema]) -> Any:
    if key == "properties":
        return {name: plain(part, shared) for name, part in value.items()}
    if key in {"anyOf", "allOf"}:
        return [plain(part, shared) for part in value]
    if key in {"items", "additionalProperties"} and isinstance(value, dict):
        return plain(value, shared)
    return value
