"""Before a plan is shown or a run begins: what fal says of the endpoints, and what follows for each job that would be
submitted. Costs nothing, and fal's silence stops nothing.

    endpoints ─▶ cache, else fal ─▶ `Facts` ─▶ one pass over the jobs to be submitted ─▶ `Verdict`
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio

from falbatch.core.checking import InputCheck
from falbatch.core.fileinputs import FILE_KEY, stand_in, with_files
from falbatch.core.findings import Findings
from falbatch.core.problems import place_of, printable
from falbatch.errors import FalbatchError, HttpError, ManifestError, Problem, WireError
from falbatch.exactjson import parse_json

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from falbatch.adapters.cache import Cache
    from falbatch.adapters.store.jobs import ManifestJobs
    from falbatch.core.manifest import Manifest
    from falbatch.core.plan import Again, ToSubmit
    from falbatch.core.pricing import Quote
    from falbatch.fal.catalogue import CatalogueClient

PATIENCE_S: Final = 5.0
"""For all that is asked together, schemas, statuses, prices and estimates: they are advice, and no run waits longer for
advice."""

STATUS_S: Final = 1.0
"""For statuses when all schemas have come."""

AT_ONCE: Final = 8
"""Questions under way together."""

MODELS_AT_ONCE: Final = 50
"""Endpoints in one question (fal-protocol §11)."""

NO_SCHEMA: Final = "fal has no schema for it"


@dataclass(frozen=True, slots=True)
class Facts:
    """What fal says of one endpoint."""

    document: Mapping[str, Any] | None = None
    """Its OpenAPI document (fal-protocol §11.2); None where it is not known."""
    at: float | None = None
    """Unix seconds at which fal said so."""
    why: str = ""
    """Why there is no document, or no newer one; "" when there is nothing to say."""
    status: str = ""
    """`active` or `deprecated`; "" where it is not known."""


class WrongInputs(ManifestError):
    """Raised with all that is wrong with a manifest, its items, and what they would send."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the jobs that would be submitted come to."""

    errors: tuple[Problem, ...] = ()
    """What their endpoints will refuse."""
    warnings: tuple[Problem, ...] = ()
    """What is worth knowing and stops nothing."""

    def raise_if_wrong(self, others: Sequence[Problem] = ()) -> None:
        """Raise `WrongInputs` when something will be refused, or when there are `others`."""
        if self.errors or others:
            raise WrongInputs(
                sorted((*others, *self.errors), key=place_of),
                warnings=self.warnings,
                advice="Where the schema is behind its model: --no-validate, or `validate: {except: [field]}` in the"
                " manifest."
                if self.errors
                else "",
            )


async def ask(
    endpoints: Sequence[str], cache: Cache, catalogue: CatalogueClient | None, *, waits_for_statuses: bool = True
) -> dict[str, Facts]:
    """What is known of `endpoints`: what was heard within a day, else what fal says now, else what was heard before.
    Without `catalogue` nobody is asked. Raises nothing that fal could cause."""
    now = time.time()
    found = {endpoint: kept_facts(cache, endpoint, now) for endpoint in endpoints}
    stale = [endpoint for endpoint, facts in found.items() if facts.why]
    if catalogue is not None and stale:
        asker = _Asker(catalogue, cache, now)
        await asker.ask(stale, STATUS_S if waits_for_statuses else 0.0)
        found |= {endpoint: asker.facts(endpoint, found[endpoint]) for endpoint in stale}
    return found


def kept_facts(cache: Cache, endpoint: str, now: float) -> Facts:
    """What the cache has; with a `why` where that is not enough."""
    kept, status = cache.get("schema", endpoint), cache.get("status", endpoint)
    word = status.value if status is not None and isinstance(status.value, str) else ""
    if kept is None or not isinstance(kept.value, dict):
        return Facts(why="its schema is not in the cache, and nobody was asked", status=word)
    return Facts(kept.value, kept.at, "" if kept.is_fresh(now) else "nobody was asked for a newer one", word)


class _Asker:
    """Asks fal about some endpoints, all at once, and keeps what it says."""

    def __init__(self, catalogue: CatalogueClient, cache: Cache, now: float) -> None:
        self._catalogue = catalogue
        self._cache = cache
        self._now = now
        self._documents: dict[str, dict[str, Any]] = {}
        self._statuses: dict[str, str] = {}
        self._why: dict[str, str] = {}

    async def ask(self, endpoints: Sequence[str], status_s: float) -> None:
        """Ask, for `PATIENCE_S` at most; statuses keep nobody waiting for more than `status_s` after the schemas."""
        limiter, apart = anyio.CapacityLimiter(AT_ONCE), anyio.CapacityLimiter(AT_ONCE)
        with anyio.move_on_after(PATIENCE_S):
            async with anyio.create_task_group() as statuses:
                for start in range(0, len(endpoints), MODELS_AT_ONCE):
                    statuses.start_soon(self._status, endpoints[start : start + MODELS_AT_ONCE], apart)
                async with anyio.create_task_group() as schemas:
                    for endpoint in endpoints:
                        schemas.start_soon(self._schema, endpoint, limiter)
                statuses.cancel_scope.deadline = anyio.current_time() + status_s

    async def _schema(self, endpoint: str, limiter: anyio.CapacityLimiter) -> None:
        try:
            async with limiter:
                document = await self._catalogue.schema(endpoint)
        except (WireError, FalbatchError, ValueError) as error:
            self._why[endpoint] = str(error)
            if isinstance(error, HttpError) and error.status == 404:
                near = [other for other in await self._catalogue.near(endpoint) if other != endpoint]
                self._why[endpoint] = NO_SCHEMA + (f"; did you mean {' or '.join(near)}?" if near else "")
            return
        self._documents[endpoint] = document
        self._cache.put("schema", endpoint, document, at=self._now)

    async def _status(self, endpoints: Sequence[str], limiter: anyio.CapacityLimiter) -> None:
        """fal refuses a list that names an unknown endpoint (fal-protocol §11.1); then each is asked for alone."""
        try:
            async with limiter:
                page = await self._catalogue.models(endpoints=endpoints)
        except HttpError as error:
            if error.status == 404 and len(endpoints) > 1:
                async with anyio.create_task_group() as tasks:
                    for endpoint in endpoints:
                        tasks.start_soon(self._status, [endpoint], limiter)
            return
        except (WireError, FalbatchError, ValueError):
            return  # the schema says what is the matter
        for model in page.models:
            self._statuses[model.endpoint] = model.status
            self._cache.put("status", model.endpoint, model.status, at=self._now)

    def facts(self, endpoint: str, before: Facts) -> Facts:
        """What is known now."""
        status = self._statuses.get(endpoint, before.status)
        if endpoint in self._documents:
            return Facts(self._documents[endpoint], self._now, "", status)
        why = self._why.get(endpoint, f"fal did not answer within {PATIENCE_S:g} s")
        return Facts(before.document, before.at, why, status)


def look_over(
    connection: sqlite3.Connection,
    jobs: ManifestJobs,
    again: Again,
    manifest: Manifest,
    facts: Mapping[str, Facts],
    *,
    validates: bool,
    quote: Quote | None = None,
) -> Verdict:
    """One pass over the jobs that would be submitted: each is checked, and added to `quote`."""
    notes: list[Problem] = []
    checks: dict[str, InputCheck] = {}
    for endpoint, known in facts.items():
        notes += _notes(manifest, endpoint, known, validates=validates)
        if validates and known.document is not None:
            try:
                checks[endpoint] = InputCheck(known.document)
            except ValueError as error:
                notes.append(_note(manifest, f"{endpoint}: inputs are not checked: its schema cannot be used: {error}"))
    findings = Findings(manifest, checks)
    if checks or quote is not None:
        twins = _pass(findings, quote, jobs.to_submit(connection, again))
        notes += _twin_notes(manifest, twins)
    return Verdict(findings.errors, (*notes, *findings.idle_exceptions(), *findings.warnings))


@dataclass(slots=True)
class _Twins:
    """Jobs that send what another job sends."""

    jobs: int = 0
    first: ToSubmit | None = None


def _pass(findings: Findings, quote: Quote | None, jobs: Iterable[ToSubmit]) -> _Twins:
    twins = _Twins()
    for job in jobs:
        if job.replica:
            twins.jobs += 1
            twins.first = twins.first or job
        input_json = job.input_json
        if FILE_KEY.encode() in input_json:
            input_json = with_files(input_json, stand_in)
        given = parse_json(input_json)
        findings.look(job.endpoint, given, job.seq, job.origin)
        if quote is not None:
            quote.add(job.endpoint, given)
    return twins


def _twin_notes(manifest: Manifest, twins: _Twins) -> Iterator[Problem]:
    """Braces that were forgotten, or an axis that nothing uses, cost as much as they multiply. `repeat` means it."""
    if twins.first is None or manifest.repeat > 1:
        return
    count = "1 job sends" if twins.jobs == 1 else f"{twins.jobs:,} jobs send"
    what = f"{count} what another job sends, and each is paid for [job {twins.first.seq + 1:,} ({twins.first.origin})]"
    hint = "if that is not meant, look for a template without {{ }}, equal rows, or an axis that nothing uses"
    yield Problem(manifest.source, *manifest.line_of(("input",)), printable(what), hint)


def _notes(manifest: Manifest, endpoint: str, facts: Facts, *, validates: bool) -> list[Problem]:
    notes = []
    if facts.status == "deprecated":
        what = f"{endpoint} is deprecated: fal may end it at any time"
        notes.append(_note(manifest, what, "`falbatch models` shows what there is instead"))
    if not validates:
        return notes
    if facts.document is None:
        notes.append(_note(manifest, f"{endpoint}: inputs are not checked: {facts.why}"))
    elif facts.why and facts.at is not None:
        day = time.strftime("%Y-%m-%d", time.gmtime(facts.at))
        notes.append(_note(manifest, f"{endpoint}: checked against the schema of {day}: {facts.why}"))
    return notes


def _note(manifest: Manifest, what: str, hint: str = "") -> Problem:
    return Problem(manifest.source, *manifest.line_of(("endpoint",)), printable(what), hint)
