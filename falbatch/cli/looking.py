"""Commands that look and change nothing: `status`, `plan`, `export`. No HTTP library is loaded for them; what reads
manifests only for those that need one."""

from __future__ import annotations

import csv
import json
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Final

from falbatch.api import batch
from falbatch.cli import render
from falbatch.cli.printing import print_json, print_lines
from falbatch.core.problems import nearest_or_list
from falbatch.core.report import status_json
from falbatch.core.state import State
from falbatch.errors import ExitCode, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from falbatch.core.plan import PlannedJob


def do_status(options: argparse.Namespace) -> int:
    """`falbatch status`."""
    status = batch.status(options.manifest, output=options.output)
    if options.json:
        print_json({"event": "status", **status_json(status)})
    else:
        print_lines(render.status_lines(status))
    return int(ExitCode.OK)


def do_plan(options: argparse.Namespace) -> int:
    """`falbatch plan`."""
    from falbatch.api import library
    from falbatch.api.planning import Selection

    each: Callable[[PlannedJob], None] | None = (lambda job: print_json(job.as_json())) if options.json else None
    selection = Selection(where=options.where, limit=options.limit, sample=options.sample)
    plan = library.plan(
        options.manifest,
        selection=selection,
        output=options.output,
        each=each,
        sandbox=options.sandbox,
        offline=options.offline,
        validate=not options.no_validate,
        key_file=options.key_file,
    )
    if options.json:
        print_json(plan.as_json())
    else:
        print_lines(render.plan_lines(plan))
    return int(ExitCode.OK)


def do_export(options: argparse.Namespace) -> int:
    """`falbatch export`."""
    states = tuple(_state(word) for word in options.state) or (State.DONE,)

    def records() -> Iterator[dict[str, Any]]:
        return batch.export(options.manifest, output=options.output, states=states)

    is_csv = (options.format or ("csv" if str(options.to or "").lower().endswith(".csv") else "jsonl")) == "csv"
    with _destination(options.to) as stream:
        count = _write_csv(stream, records) if is_csv else _write_jsonl(stream, records())
    print(f"{count:,} jobs exported", file=sys.stderr)
    return int(ExitCode.OK)


def _state(word: str) -> State:
    try:
        return State(word)
    except ValueError:
        hint = nearest_or_list(word, [state.value for state in State])
        raise UsageError(f'--state: there is no state "{word}" ({hint})') from None


@contextmanager
def _destination(path: Path | None) -> Iterator[IO[str]]:
    """stdout, or `path` as a whole: an export that breaks off leaves the old file as it was."""
    if path is None:
        yield sys.stdout
        return
    from falbatch.adapters.files import whole_file

    with whole_file(path) as stream:
        yield stream


def _write_jsonl(stream: IO[str], records: Iterable[dict[str, Any]]) -> int:
    count = 0
    for record in records:
        stream.write(json.dumps(record, ensure_ascii=False) + "\n")
        count += 1
    return count


def _write_csv(stream: IO[str], records: Callable[[], Iterator[dict[str, Any]]]) -> int:
    """Read twice: the columns are those of all jobs together, which may be too many to hold."""
    columns: dict[str, None] = {}
    for record in records():
        columns.update(dict.fromkeys(batch.flat(record)))
    writer = csv.DictWriter(stream, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    count = 0
    for record in records():
        writer.writerow(batch.flat(record))
        count += 1
    return count


HANDLERS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "status": do_status,
    "plan": do_plan,
    "export": do_export,
}
