"""What a state file tells: how its batch stands, and its jobs with their results. Loads no HTTP library."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from falbatch.adapters import lock
from falbatch.adapters.store import reader
from falbatch.adapters.store.database import open_reader, translated
from falbatch.api.workspace import Workspace, open_places
from falbatch.core.identity import input_of
from falbatch.core.state import State
from falbatch.exactjson import parse_json

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from falbatch.core.report import BatchStatus


@contextlib.contextmanager
def reading(place: Workspace) -> Iterator[sqlite3.Connection]:
    """A connection to a batch's state file, for questions. Raises `StateError`."""
    with contextlib.closing(open_reader(place.state)) as connection, translated(place.state):
        yield connection


def status(argument: str | Path, *, output: Path | None = None) -> BatchStatus:
    """How a batch stands, also while it runs. Raises `StateError` when it never ran."""
    place = open_places(Path(argument), output=output)
    with reading(place) as connection:
        return reader.status(connection, running=lock.is_held(place.state))


def export(
    argument: str | Path, *, output: Path | None = None, states: tuple[State, ...] = (State.DONE,)
) -> Iterator[dict[str, Any]]:
    """The jobs in `states` with their inputs, results and files, one JSON object each, in the manifest's order."""
    place = open_places(Path(argument), output=output)
    with reading(place) as connection:
        for row in reader.export_rows(connection, states):
            yield export_object(row)


def export_object(row: reader.ExportRow) -> dict[str, Any]:
    """One job as an export shows it. Integers stay exact; a result that is no JSON is left to its file."""
    record = asdict(row)
    record["state"] = row.state.value
    record["orphaned"] = row.seq is None
    record["flags"] = list(row.flags)
    record["lineage"] = [{**asdict(one), "flags": list(one.flags), "files": list(one.files)} for one in row.lineage]
    record["input"] = input_of(record.pop("input_json"))
    record["result"] = _result_value(row.result)
    record["files"] = [
        {
            "path": file.path,
            "size_bytes": file.size_bytes,
            "sha256": file.sha256.hex(),
            "content_type": file.content_type,
            "black": file.is_black,
        }
        for file in row.files
    ]
    return record


def _result_value(body: bytes | None) -> Any:
    if body is None:
        return None
    try:
        return parse_json(body)
    except ValueError:
        return None


def flat(record: dict[str, Any]) -> dict[str, str]:
    """An export object as one CSV row: inputs under `input.<field>`, the rest as text, nested values as JSON."""
    row = {name: _cell(value) for name, value in record.items() if name not in {"input", "files", "result", "flags"}}
    row |= {f"input.{name}": _cell(value) for name, value in record["input"].items()}
    row["flags"] = ";".join(record["flags"])
    row["files"] = ";".join(file["path"] for file in record["files"])
    row["result"] = _cell(record["result"])
    return row


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
