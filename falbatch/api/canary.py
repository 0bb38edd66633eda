"""A run's canary: what was asked for, what it came to, and its contact sheet in the output folder."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from falbatch.adapters.files import write_whole
from falbatch.adapters.store import canary as on_record
from falbatch.adapters.store import reader, spending, uploads
from falbatch.adapters.store.database import translated
from falbatch.core import inputvalues
from falbatch.core.canary import JOBS_MOST, Wish
from falbatch.core.expand import variant_count
from falbatch.core.identity import input_of
from falbatch.core.page import MARK, Card, Figure, Page, figure_of, html_of
from falbatch.core.report import ADVICE, ADVICE_DEFAULT
from falbatch.core.seeds import asked_seed, named_seed
from falbatch.core.state import State
from falbatch.core.trial import GOES_ON, LOST, CanaryReport, TriedJob, reckon
from falbatch.core.trialwords import facts_of, job_facts, next_words
from falbatch.core.words import counted
from falbatch.errors import FalbatchError, OutputError, UsageError
from falbatch.exactjson import parse_json

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from falbatch.adapters.store.store import Store
    from falbatch.api.options import RunOptions
    from falbatch.api.workspace import Workspace
    from falbatch.core.manifest import Manifest
    from falbatch.core.model import JsonObject

PAGE: Final = "canary"
"""The contact sheet's name in the output folder, without its ending."""

NAMES_MOST: Final = 100
"""Names that are tried where others' files stand in the way."""

TEXT_MOST: Final = 2_000
"""Characters of a text result that a card shows."""

PROMPT_MOST: Final = 400

SEEN: Final = frozenset({"image", "drawing", "video", "audio"})
"""Kinds of files that show what a result is; beside others, its words are shown."""


def wish_of(options: RunOptions, manifest: Manifest) -> Wish | None:
    """The canary that `options` ask for; None for a run over all that is left. Raises `UsageError`."""
    if options.canary is None:
        return None
    if not 1 <= options.canary <= JOBS_MOST:
        raise UsageError(
            f"a canary of {options.canary:,} jobs: it takes 1 to {JOBS_MOST:,}",
            advice="Ten to a hundred tell most; `--limit N` runs the first N.",
        )
    if options.retry is not None or options.resubmit_unknown:
        raise UsageError(
            "a canary tries jobs that were not submitted yet: it does none again",
            advice="Leave --retry-failed and --resubmit-unknown to a run without --canary.",
        )
    return Wish(
        jobs=options.canary, seed=manifest.name, variants=variant_count(manifest), repeat=max(1, manifest.repeat)
    )


def next_command(options: RunOptions, workspace: Workspace, source: str) -> str:
    """The command that does what a canary left, with what decides about its jobs, its folder, its cost and its fal."""
    selection = options.selection
    words = ["falbatch", "run", source]
    given: list[tuple[str, Any]] = [
        ("--output", workspace.output if options.output is not None else None),
        ("--where", selection.where),
        ("--limit", selection.limit),
        ("--sample", selection.sample),
        ("--key-file", options.key_file),
        ("--max-cost", options.max_cost),
        ("--ask-above", options.ask_above),
        ("--reconcile-wait", options.reconcile_s),
        ("--webhook-listen", options.webhook_listen),
        ("--webhook-url", options.webhook_url),
    ]
    for flag, value in given:
        words += [] if value is None else [flag, str(value)]
    words += [] if options.validate else ["--no-validate"]
    return shlex.join([*words, "--sandbox"] if options.sandbox else words)


def conclude(
    store: Store, wish: Wish, *, whole: bool, output: Path, command: str, limit: int | None
) -> tuple[CanaryReport, str]:
    """What the canary came to, its contact sheet written; and why that could not be written, "" when it could. One of
    no jobs leaves the sheet of another alone. `limit`: nano-dollars that the batch may cost by `command`."""
    connection = store.connection
    with translated(store.path):
        jobs = on_record.jobs(connection, wish, whole=whole)
        left = on_record.left(connection, wish, whole=whole)
        report = reckon(jobs, left, spending.money(connection))
        if report.left:
            report = report.with_next(command, limit)
        if not jobs:
            return report, ""
        html = html_of(_page(connection, output, wish.seed, report))
    try:
        return report.with_page(str(_written(output, html))), ""
    except FalbatchError as error:
        return report, str(error)


def _page(connection: sqlite3.Connection, output: Path, name: str, report: CanaryReport) -> Page:
    facts = facts_of(report)
    if report.left:
        facts.append(("next", f"{report.next} {next_words(report)}"))
    places = inputvalues.varying(input_of(job.input_json) for job in report.jobs)
    cards = (_card(connection, output, job, places) for job in report.jobs)
    return Page(f"{name}: canary of {counted(len(report.jobs), 'job')}", facts, cards)


def _written(output: Path, html: str) -> Path:
    """The page on disk, whole; where it stands already, and is ours, the new one takes its place."""
    for number in range(1, NAMES_MOST):
        place = output / f"{PAGE}{'' if number == 1 else f'-{number}'}.html"
        if not os.path.lexists(place) or _is_ours(place):
            break
    else:
        raise OutputError(f"{output / PAGE}.html: all names for the contact sheet are taken", advice="Remove some.")
    write_whole(place, html.encode("utf-8", errors="replace"))
    return place


def _is_ours(place: Path) -> bool:
    with suppress(OSError), place.open("rb") as file:
        return not place.is_symlink() and file.read(len(MARK)) == MARK.encode()
    return False


def _card(connection: sqlite3.Connection, output: Path, job: TriedJob, places: frozenset[str]) -> Card:
    """One job; `places`: where the canary's inputs differ."""
    figures = tuple(_figures(output, job))
    is_seen = any(figure.kind in SEEN for figure in figures)
    text = "" if is_seen or job.state is not State.DONE else _result_text(connection, job)
    is_bad = job.state is not State.DONE
    return Card(
        title=job.name,
        figures=figures,
        text=text,
        badges=job.flags,
        facts=tuple(one for one in _facts(connection, job, places) if one),
        troubles=tuple(_troubles(job)) if is_bad else (),
        is_bad=is_bad,
    )


def _facts(connection: sqlite3.Connection, job: TriedJob, places: frozenset[str]) -> Iterator[str]:
    """Where it is from, what was asked for, and what that came to; "" for what is not known."""
    given = input_of(job.input_json)
    seed, prompt = _seed(connection, job, given), _prompt(given)
    yield from (job.origin, seed, prompt)
    said = {name for name, words in (("seed", seed), ("prompt", prompt)) if words}
    yield from inputvalues.told(given, places - said, lambda sha256: _file_name(connection, sha256))
    yield ", ".join(job_facts(job))


def _file_name(connection: sqlite3.Connection, sha256: str) -> str:
    paths = uploads.paths_of(connection, bytes.fromhex(sha256))
    return PurePath(paths[0]).name if paths else f"a file of before, SHA-256 {sha256}"


def _figures(output: Path, job: TriedJob) -> Iterator[Figure]:
    for file in job.files:
        is_there = (output / file.path).is_file()
        yield figure_of(file.path, file.content_type) if is_there else Figure(file.path, "missing")


def _result_text(connection: sqlite3.Connection, job: TriedJob) -> str:
    """A result without pictures, films or sounds: the model's words, else its JSON."""
    stored = reader.result_of(connection, job.job_id)
    if stored is None:
        return ""
    text = stored.body.decode("utf-8", errors="replace")
    with suppress(ValueError):
        value = parse_json(stored.body)
        said = value.get("output", value.get("text")) if isinstance(value, dict) else value
        text = said if isinstance(said, str) else text
    return _short(text, TEXT_MOST)


def _seed(connection: sqlite3.Connection, job: TriedJob, given: JsonObject) -> str:
    """The seed that was sent, else the one that the model took: the result can be made again with it."""
    seed = asked_seed(given) if job.sent_seed is None else job.sent_seed
    stored = reader.result_of(connection, job.job_id) if seed is None else None
    if stored is not None:
        with suppress(ValueError):
            seed = named_seed(parse_json(stored.body))
    return "" if seed is None else f"seed {seed}"


def _prompt(given: JsonObject) -> str:
    prompt = given.get("prompt")
    return _short(prompt, PROMPT_MOST) if isinstance(prompt, str) else ""


def _troubles(job: TriedJob) -> Iterator[str]:
    """Why a job has no files, and what to do about it."""
    if job.state is State.UNKNOWN:
        yield "unknown: its submit got no answer, so it may have run and been charged"
        yield "`falbatch reconcile` looks for it at fal again, at no charge"
    else:
        yield ": ".join(one for one in (job.state, job.error_type, _short(job.error or "", PROMPT_MOST)) if one)
        if job.state in LOST:
            yield ADVICE.get(job.error_type or "", ADVICE_DEFAULT)
        elif job.state in GOES_ON:
            yield "the same command goes on with it"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "…"
