"""The small direct windows on fal: `call`, `upload`, `models`, `schema`, `price`."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from falbatch.api import calling, price_window, windows
from falbatch.api.starting import manifest_schema
from falbatch.cli.costs import cost_words, day_of, how
from falbatch.core.fileinputs import FILE_STANDS
from falbatch.core.money import NANO, in_dollars
from falbatch.core.problems import nearest, one_line
from falbatch.core.yamltext import load
from falbatch.errors import ExitCode, FalbatchError, UsageError
from falbatch.exactjson import parse_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from falbatch.api.price_window import EndpointPrice
    from falbatch.api.windows import Model
    from falbatch.core.fields import Field

DATA_SHOWN: Final = 60
"""Characters of a data URI on a terminal; `--json` writes all."""

NARROW: Final = 40
"""Columns that a description gets at least."""


def do_call(options: argparse.Namespace) -> int:
    """`falbatch call`."""
    given, uploads = read_input(options.input, options.fields)
    asked = calling.CallOptions(
        options.endpoint,
        given,
        uploads,
        _way(options),
        options.result or "",
        timeout_s=options.timeout,
        logs=options.logs,
        output=options.output,
        key_file=options.key_file,
        is_sandbox=options.sandbox,
        validates=not options.no_validate,
    )
    teller = _Teller(options.endpoint)

    def on_output(output: Any) -> None:
        if asked.way is not calling.Way.STREAM:  # whose last event it was
            print(_line(output) if options.json else shown(output), flush=True)

    listen = calling.CallListener(
        teller.accepted, teller.updated, lambda event: print(_line(event), flush=True), _warn, on_output
    )
    try:
        files = anyio.run(lambda: calling.call(asked, listen))
    except KeyboardInterrupt:
        if not options.sandbox:  # which ends with us
            teller.say_how_to_go_on()
        raise
    for path in files:
        print(options.output / path, file=sys.stderr)
    return int(ExitCode.OK)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def _way(options: argparse.Namespace) -> calling.Way:
    ways = {"run": calling.Way.RUN, "stream": calling.Way.STREAM, "realtime": calling.Way.REALTIME}
    return next((way for name, way in ways.items() if getattr(options, name)), calling.Way.QUEUE)


class _Teller:
    """What is said on stderr while a call goes on."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._request_id = ""
        self._said = ""
        self._logged = 0

    def accepted(self, request_id: str) -> None:
        """fal took it."""
        self._request_id = request_id
        print(f"request {request_id}", file=sys.stderr)

    def updated(self, status: object) -> None:
        """Say each new phase once, and each line of the log once."""
        words = type(status).__name__
        if words != self._said:
            self._said = words
            print(words, file=sys.stderr)
        logs = getattr(status, "logs", None) or []
        for line in logs[self._logged :]:
            print(f"  {line.get('message', '')}", file=sys.stderr)
        self._logged = max(self._logged, len(logs))

    def say_how_to_go_on(self) -> None:
        """A request that was accepted is not lost with us."""
        if self._request_id:
            print(
                f"it goes on at fal; `falbatch call {self._endpoint} --result {self._request_id}` collects it",
                file=sys.stderr,
            )


def read_input(file: Path | None, fields: Sequence[str]) -> tuple[dict[str, Any], dict[tuple[str, ...], Path]]:
    """The input that a file and `NAME=VALUE` words make, and the files to upload by their places in it.

    Raises `UsageError` for what is no such word, a file that is not there, or a name in the way of another.
    """
    given: dict[str, Any] = {}
    if file is not None:
        try:
            given, _ = load(file.read_bytes(), source=str(file))
        except OSError as error:
            raise UsageError(f"--input {file}: cannot be read ({error.strerror})") from error
    files: dict[tuple[str, ...], Path] = {}
    for word in fields:
        name, equals, text = word.partition("=")
        place = tuple(name.split("."))
        if not equals or not all(place):
            raise UsageError(f"{word!r} is not NAME=VALUE", advice='Quote a value with spaces: prompt="a red kite".')
        if text.startswith("@"):
            files[place] = _existing(text[1:], word)
        given = calling.put(given, place, _value(text))
    return given, files


def _existing(name: str, word: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"{word!r}: there is no file {name!r}", advice="Nothing was submitted.")
    return path


def _value(text: str) -> Any:
    """JSON where it is JSON, else the text itself."""
    try:
        return parse_json(text.encode())
    except ValueError:
        return text


def do_upload(options: argparse.Namespace) -> int:
    """`falbatch upload`."""

    async def upload() -> None:
        uploads = calling.upload(
            options.files, expires_in=options.expires_in, key_file=options.key_file, is_sandbox=options.sandbox
        )
        async for path, url in uploads:
            print(_line({"file": str(path), "url": url}) if options.json else url, flush=True)

    anyio.run(upload)
    return int(ExitCode.OK)


def do_models(options: argparse.Namespace) -> int:
    """`falbatch models`."""
    found = anyio.run(
        lambda: windows.models(
            " ".join(options.query),
            category=options.category,
            status=options.status,
            limit=options.limit + 1,
            key_file=options.key_file,
            is_sandbox=options.sandbox,
        )
    )
    for line in _model_lines(found[: options.limit], is_json=options.json):
        print(line)
    if len(found) > options.limit:
        print(f"these are the first {options.limit}; --limit N shows more", file=sys.stderr)
    if not found:
        print(f"no model matches{_other_categories(options)}", file=sys.stderr)
    return int(ExitCode.OK)


def _other_categories(options: argparse.Namespace) -> str:
    """What there is in place of a category that fal does not have; "" where it has it, or does not say."""
    if not options.category:
        return ""
    try:
        known = anyio.run(lambda: windows.categories(key_file=options.key_file, is_sandbox=options.sandbox))
    except FalbatchError:
        return ""
    if options.category in known:
        return ""
    hint = nearest(options.category, known)
    return f": there is no category {options.category!r}{f' ({hint})' if hint else ''}; there are: {', '.join(known)}"


def _model_lines(found: list[Model], *, is_json: bool) -> Iterator[str]:
    if is_json:
        yield from (json.dumps(dict(model.record), ensure_ascii=False) for model in found)
        return
    wide = max((len(model.endpoint) for model in found), default=0)
    kinds = max((len(model.category) for model in found), default=0)
    for model in found:
        note = " (deprecated)" if model.status == "deprecated" else ""
        yield f"{model.endpoint:<{wide}}  {model.category:<{kinds}}  {model.name}{note}".rstrip()


def do_schema(options: argparse.Namespace) -> int:
    """`falbatch schema`."""
    if options.manifest == (options.endpoint is not None):
        raise UsageError("schema takes an endpoint, or --manifest")
    if options.manifest:
        print(_line(json.loads(manifest_schema())) if options.json else manifest_schema().rstrip())
        return int(ExitCode.OK)
    found = anyio.run(lambda: windows.schema(options.endpoint, is_sandbox=options.sandbox))
    if options.json:
        print(json.dumps(found.document, ensure_ascii=False))
        return int(ExitCode.OK)
    print(found.endpoint)
    for title, fields in (("input", found.fields.inputs), ("output", found.fields.outputs)):
        print(f"\n{title}:")
        for line in field_lines(fields, shutil.get_terminal_size((100, 24)).columns):
            print(line)
    return int(ExitCode.OK)


def field_lines(fields: Sequence[Field], columns: int) -> Iterator[str]:
    """A table of fields: name (`*`: must be given), type with default and bounds, then what it means."""
    if not fields:
        yield "  (the schema names no fields)"
        return
    named = [*_with_inner(fields)]
    wide = max(len(one_line(name)) for name, _ in named) + 1
    for name, field in named:
        facts = [field.type, field.bounds, f"default {field.default}" if field.default else ""]
        starred = one_line(name) + ("*" if field.is_required else "")
        room = max(NARROW, columns - wide - 4)
        first, *rest = textwrap.wrap(one_line("; ".join(fact for fact in facts if fact)), room)
        yield f"  {starred:<{wide}}  {first}"
        yield from (" " * (wide + 4) + line for line in [*rest, *textwrap.wrap(one_line(field.description), room)])


def _with_inner(fields: Sequence[Field], before: str = "") -> Iterator[tuple[str, Field]]:
    """All fields with their names as `call` takes them, those of objects after them: `image_size.width`."""
    for field in fields:
        name = before + field.name
        yield name, field
        yield from _with_inner(field.inside, f"{name}[]." if "array" in field.kinds else f"{name}.")


def do_price(options: argparse.Namespace) -> int:
    """`falbatch price`."""
    given, files = read_input(None, options.fields)
    for place in files:  # never uploaded: only that something is there may matter
        given = calling.put(given, place, FILE_STANDS)
    found = anyio.run(
        lambda: price_window.prices(
            options.endpoints,
            given if options.fields else None,
            key_file=options.key_file,
            is_sandbox=options.sandbox,
            validates=not options.no_validate,
        )
    )
    for warning in found.warnings:
        _warn(warning)
    for one in found.endpoints:
        if options.json:
            print(_line(_price_json(one)))
        else:
            for line in _price_lines(one):
                print(line)
    if found.trouble:
        print(found.trouble, file=sys.stderr)
    return int(ExitCode.OK)


def _price_json(found: EndpointPrice) -> dict[str, Any]:
    price, estimate = found.price, found.estimate
    average = None if estimate is None else estimate.nano_per_call
    return {
        "endpoint": found.endpoint,
        "unit": price.unit,
        "unit_price": price.nano_per_unit / NANO,
        "priced_at": price.at,
        "average_call": None if average is None else average / NANO,
        "averaged_at": None if estimate is None else estimate.at,
        "call": None if found.call is None else found.call.as_json(),
    }


def _price_lines(found: EndpointPrice) -> Iterator[str]:
    price, estimate, call = found.price, found.estimate, found.call
    yield f"{found.endpoint}  {in_dollars(price.nano_per_unit)} per {price.unit or 'unit'} ({day_of(price.at)})"
    if estimate is not None and estimate.nano_per_call is not None:
        yield f"  an average call, as fal says: {in_dollars(estimate.nano_per_call)} ({day_of(estimate.at)})"
    if call is not None:
        yield f"  this call: {cost_words(call)}{how(call, time.time())}"
        if call.words:
            yield f"    {call.words}"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def shown(value: Any) -> str:
    """A result for people: indented JSON, integers exact, and of a data URI only the beginning."""
    return json.dumps(_short(value), ensure_ascii=False, indent=2)


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_short(part) for part in value]
    is_long = isinstance(value, str) and value.startswith("data:") and len(value) > DATA_SHOWN
    return f"{value[:DATA_SHOWN]}… ({len(value):,} characters)" if is_long else value


HANDLERS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "call": do_call,
    "upload": do_upload,
    "models": do_models,
    "schema": do_schema,
    "price": do_price,
}
