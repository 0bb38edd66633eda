"""The manifest's JSON Schema, for editors: made of the same models and tables that the parser goes by.

It is never stricter than the parser (`core/manifest.py`), so an editor refuses nothing that runs. What it cannot say
stays the parser's: what depends on two places at once (mode and limits, lists of one length), what is inside a
template, names that are in use, whether a number was meant as text. Draft-07, since that is what the editors' YAML
servers know in full.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, Final

from pydantic.json_schema import GenerateJsonSchema

from falbatch.core import manifest as parser
from falbatch.core.fileinputs import CONTENT_TYPE, FILE_KEY, FileInput, Travel
from falbatch.core.limits import DOLLARS_MOST
from falbatch.core.manifest import MAX_REPEAT, NOT_NAMES, VERSION, Manifest
from falbatch.core.model import Mode
from falbatch.core.rows import BY_SUFFIX, FileRows, GlobRows, InlineRows, RowFormat, RowsSpec, Sample
from falbatch.core.schema import Section, expected, whole
from falbatch.core.validation import EXCEPT, Validation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Told = Callable[[type, str], str]
    """Class and field → the field's docstring."""

Schema = dict[str, Any]

DRAFT: Final = "http://json-schema.org/draft-07/schema#"
TITLE: Final = "falbatch manifest"
"""By it a file is known as this schema."""

_FILLED: Final = r"\S"
_NO_TEMPLATE: Final = r"^(?![\s\S]*\{[{%#])"
_COUNT: Final[Schema] = {"type": ["integer", "null"], "minimum": 1}


def manifest_schema(told: Told) -> Schema:
    """The schema of a whole manifest, its descriptions being the docstrings that `told` knows."""
    shared: Schema = {}
    plain = {
        name: {"description": made.get("description") or _words(told(Manifest, name)), **made}
        for name, made in _plain_keys(told).items()
    }
    sections = {name: _section(model, told, shared) for name, model in section_models().items()}
    shared = {"constant": _constant(), "values": _values(), "value": _value(told), **shared}
    exact = {"endpoint": plain["endpoint"]}  # which is never a word that could be taken for a number
    return {
        "$schema": DRAFT,
        "title": TITLE,
        "description": "What falbatch is to run: inputs, endpoint, output and limits.",
        "type": "object",
        "properties": {name: _numbers_too(made) for name, made in (plain | sections).items()} | exact,
        "required": ["endpoint", "input"],
        "additionalProperties": False,
        "definitions": {name: _numbers_too(made) for name, made in shared.items()},
    }


_LIKE_NUMBERS: Final = ("001", "0x1F", "0o7", "+5", "1.", ".inf")
"""Texts, for the parser (core/yamltext.py), and numbers for editors."""


def _numbers_too(made: Any) -> Any:
    """A schema that takes numbers, too, where it takes texts that an editor would read as numbers: `hint: 0x1F`. It
    cannot tell `001` from 1, so what a number itself means there is the parser's to say."""
    if isinstance(made, list):
        return [_numbers_too(part) for part in made]
    if not isinstance(made, dict):
        return made
    kinds = made.get("type")
    wanted = {name: part if name in _AS_IT_IS else _numbers_too(part) for name, part in made.items()}
    words = kinds if isinstance(kinds, list) else [kinds]
    is_free = "enum" not in made and "const" not in made
    if "string" in words and "number" not in words and is_free and _takes_like_numbers(made):
        wanted["type"] = [*(word for word in words if word != "integer"), "number"]
    return wanted


_AS_IT_IS: Final = frozenset({"propertyNames", "default", "examples", "enum", "const", "required", "dependencies"})
"""Keywords without a schema of a value inside."""


def _takes_like_numbers(made: Schema) -> bool:
    pattern = re.compile(made.get("pattern", ""))
    return any(pattern.search(text) and made.get("minLength", 0) <= len(text) for text in _LIKE_NUMBERS)


def _words(docstring: str) -> str:
    """A docstring as an editor shows it: on one line, with YAML's word for nothing."""
    return re.sub(r"\bNone\b", "null", " ".join(docstring.split()))


def _plain_keys(told: Told) -> dict[str, Schema]:
    """The keys that `core/manifest.py` and its neighbours read by hand. Each is described by Manifest's field of its
    name, or by itself."""
    return {
        "version": {"type": "integer", "const": VERSION, "default": VERSION},
        "name": {
            "type": ["string", "null"],
            "pattern": rf"{_NO_TEMPLATE}[^/]*$",
            "patternErrorMessage": "One name for the whole batch: no template, no slash.",
        },
        "endpoint": {"type": "string", "pattern": _FILLED, "examples": ["fal-ai/flux/dev"]},
        "mode": {"type": "string", "enum": [mode.value for mode in Mode], "default": Mode.QUEUE.value},
        "vars": {
            "type": ["object", "null"],
            "propertyNames": _name(),
            "additionalProperties": {"$ref": "#/definitions/constant"},
        },
        "rows": _rows(told),
        "matrix": _matrix(),
        "zip": {
            "type": ["object", "null"],
            "propertyNames": _name(),
            "additionalProperties": {"$ref": "#/definitions/values"},
        },
        "repeat": {"type": "integer", "minimum": 1, "maximum": MAX_REPEAT, "default": 1},
        "validate": {
            "anyOf": [
                {"type": "boolean"},
                {
                    "type": "object",
                    "properties": {
                        EXCEPT: {
                            "type": ["array", "null"],
                            "items": {"type": "string", "minLength": 1},
                            "description": _words(told(Validation, "exceptions")),
                        }
                    },
                    "additionalProperties": False,
                },
            ],
            "default": True,
        },
        "input": {
            "type": "object",
            "propertyNames": {"not": {"const": FILE_KEY}},
            "additionalProperties": {"$ref": "#/definitions/value"},
        },
    }


def _name() -> Schema:
    """A name that the manifest gives to templates."""
    return {"pattern": whole(parser.NAME), "not": {"enum": sorted(NOT_NAMES)}}


def _constant() -> Schema:
    """Any value without a template in it."""
    inner = {"$ref": "#/definitions/constant"}
    return {
        "pattern": _NO_TEMPLATE,
        "patternErrorMessage": "Templates are not rendered here; they belong into input, endpoint and output.name.",
        "items": inner,
        "additionalProperties": inner,
    }


def _values() -> Schema:
    """A list, or `{range: …}`."""
    ranged = {"type": "object", "properties": {"range": _range()}, "required": ["range"], "additionalProperties": False}
    return {"anyOf": [{"type": "array", "minItems": 1, "items": {"$ref": "#/definitions/constant"}}, ranged]}


def _range() -> Schema:
    step = {"type": "integer", "not": {"const": 0}}
    return {
        "description": "[start, stop] or [start, stop, step]; stop itself is left out.",
        "type": "array",
        "items": [{"type": "integer"}, {"type": "integer"}, step],
        "minItems": 2,
        "maxItems": 3,
    }


def _matrix() -> Schema:
    part = {
        "type": "object",
        "minProperties": 1,
        "propertyNames": _name(),
        "additionalProperties": {"$ref": "#/definitions/constant"},
    }
    parts = {"type": ["array", "null"], "items": part}
    return {
        "type": ["object", "null"],
        "properties": {
            "exclude": {"description": "Combinations to leave out: those that have all of an entry's values.", **parts},
            "include": {"description": "What is added to combinations that fit, or stands for itself.", **parts},
        },
        "propertyNames": _name(),
        "additionalProperties": {"$ref": "#/definitions/values"},
    }


def _value(told: Told) -> Schema:
    """A value inside `input`: anything, with templates; a mapping of the three keys is a file."""
    inner = {"$ref": "#/definitions/value"}
    about = {
        "file": {"type": "string", "pattern": _FILLED, "description": _words(told(FileInput, "path"))},
        "as": {
            "enum": [travel.value for travel in Travel],
            "default": Travel.URL.value,
            "description": _words(f"{told(Travel, 'URL')} {told(Travel, 'DATA')}"),
        },
        "content_type": {
            "type": ["string", "null"],
            "pattern": whole(CONTENT_TYPE),
            "description": _words(told(FileInput, "content_type")),
        },
    }
    return {
        "if": {"type": "object", "required": ["file"], "propertyNames": {"enum": [*about]}},
        "then": {"properties": about},
        "else": {
            "if": {"type": "object", "required": ["derive"], "maxProperties": 1},
            "then": {"properties": {"derive": {"const": True, "description": "A seed that follows from the job."}}},
            "else": {"propertyNames": {"not": {"const": FILE_KEY}}, "additionalProperties": inner, "items": inner},
        },
    }


def _rows(told: Told) -> Schema:
    return {
        "anyOf": [
            {
                "type": "string",
                "pattern": _file_pattern(),
                "patternErrorMessage": f"A file of rows ends in {', '.join(BY_SUFFIX)}; a pattern is {{glob: …}}.",
            },
            {**_inline(), "description": _words(told(InlineRows, "rows"))},
            {**_row_settings(told), "type": "object"},
        ]
    }


def _inline() -> Schema:
    entry = {"type": ["object", "string", "number", "boolean", "null"], "allOf": [{"$ref": "#/definitions/constant"}]}
    return {"type": "array", "minItems": 1, "items": entry}


def _file_pattern() -> str:
    """A path whose ending tells the format, in any case; no pattern of files."""
    endings = "|".join("".join(f"[{c}{c.upper()}]" for c in suffix[1:]) for suffix in BY_SUFFIX)
    return rf"^[^*?\[]*\.(?:{endings})(?:/\.?)*$"


def _row_settings(told: Told) -> Schema:
    sources: Schema = {
        "file": {
            "type": "string",
            "pattern": r"^[^*?\[]+$",
            "description": _words(told(FileRows, "file")),
        },
        "glob": {"type": "string", "minLength": 1, "description": _words(told(GlobRows, "pattern"))},
        "list": {**_inline(), "description": _words(told(InlineRows, "rows"))},
        "range": _range(),
    }
    choice = {
        "n": {**_COUNT, "description": _words(told(Sample, "n"))},
        "seed": {"type": "integer", "default": 0, "description": _words(told(Sample, "seed"))},
    }
    sample = {"type": "object", "properties": choice, "required": ["n"], "additionalProperties": False}
    return {
        "properties": {
            **sources,
            "format": {"enum": [*(kind.value for kind in RowFormat), None]},
            "where": {
                "type": ["string", "null"],
                "pattern": _FILLED,
                "description": _words(told(RowsSpec, "where")),
            },
            "sample": {"anyOf": [_COUNT, sample], "description": _words(told(RowsSpec, "sample"))},
            "limit": {**_COUNT, "description": _words(told(RowsSpec, "limit"))},
        },
        "dependencies": {"format": ["file"]},
        "oneOf": [{"required": [name]} for name in sources],
        "additionalProperties": False,
    }


class _Generator(GenerateJsonSchema):
    """pydantic's, with amounts of money as YAML has them."""

    def decimal_schema(self, schema: Any) -> Schema:  # noqa: ARG002
        """US dollars: the parser takes numbers only."""
        return {"type": "number", "minimum": 0, "maximum": DOLLARS_MOST}


def section_models() -> Mapping[str, type[Section]]:
    """The keys of a manifest that are sections, with their models: each field of Manifest whose type is one."""
    known = {name: kind for name, kind in vars(parser).items() if isinstance(kind, type) and issubclass(kind, Section)}
    return {field.name: known[str(field.type)] for field in dataclasses.fields(Manifest) if str(field.type) in known}


def _section(model: type[Section], told: Told, shared: Schema) -> Schema:
    made = model.model_json_schema(schema_generator=_Generator, ref_template="#/definitions/{model}")
    shared.update(made.get("$defs", {}))
    return {
        "description": _words(model.__doc__ or ""),
        "type": ["object", "null"],  # `limits:` with everything below it commented out
        "properties": {name: _setting(model, name, one, told) for name, one in made.get("properties", {}).items()},
        "required": made.get("required", []),
        "additionalProperties": False,
    }


def _setting(model: type[Section], name: str, made: Schema, told: Told) -> Schema:
    """A field of a section: without pydantic's title, with our words."""
    words = f"{_words(told(model, name))} Takes {expected(model, name)}."
    kept = {key: value for key, value in made.items() if key not in {"title", "description"}}
    if kept.get("default", "") in (None, ""):
        kept.pop("default", None)
    if "$ref" in kept:  # of which draft-07 would drop the rest
        kept = {"allOf": [{"$ref": kept.pop("$ref")}], **kept}
    if "pattern" in kept:
        kept["patternErrorMessage"] = f"{name} must be {expected(model, name)}."  # what editors show in place of it
    return {"description": words, **kept}
