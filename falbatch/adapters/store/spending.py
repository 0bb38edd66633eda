"""Questions about money and about submits without an answer: what was spent, what is reserved, what was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from falbatch.core.model import Mode
from falbatch.core.money import Learned, Price, Purse
from falbatch.core.reconcile import LostSubmit
from falbatch.core.report import Money
from falbatch.core.state import State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Mapping

    from falbatch.core.money import Bill

SUBMIT_MOST_S: Final = 130.0
"""A submit whose program was killed left no end: it cannot have been under way for longer (fal/queue.py gives it a
minute, the transport another one to wait for its turn, and a process that stood still five seconds)."""

SAMPLE: Final = 500
"""Bills of an endpoint that its mean is reckoned from: it is off by a twentieth of what they differ by."""
LOOKED_THROUGH: Final = 20_000
"""Requests that are looked through for them: some milliseconds, whatever the batch's size."""

LEFT_OPEN: Final = (
    "id IN (SELECT a.job_id FROM attempts a WHERE (a.outcome IS NULL OR a.outcome = 'no_answer') AND NOT EXISTS"
    " (SELECT 1 FROM attempts b WHERE b.job_id = a.job_id AND b.attempt > a.attempt"
    " AND b.outcome IN ('accepted', 'found', 'rejected')))"
)
"""Of jobs: the latest submit that may have been accepted got no answer."""

_LOST: Final = "(a.outcome IS NULL OR a.outcome = 'no_answer')"
"""No answer came, or the program ended before one."""

_AT_FAL: Final = (
    "SELECT coalesce(sum(a.reserved_nano), 0) FROM jobs j JOIN requests r ON r.request_id = j.request_id"
    " JOIN attempts a ON a.job_id = r.job_id AND a.attempt = r.attempt WHERE j.state = 'submitted'"
    " AND j.state <> 'done'"
)


def money(connection: sqlite3.Connection) -> Money:
    """What the batch has cost, and what may still come."""
    now = purse(connection, None)
    priced, unpriced = connection.execute("SELECT priced, unpriced FROM totals").fetchone()
    mean = round(now.spent / priced) if priced else None
    return Money(spent=now.spent, reserved=now.at_fal + now.lost, mean=mean, unpriced=unpriced)


def purse(connection: sqlite3.Connection, limit: int | None) -> Purse:
    """The batch's money as it stands on record."""
    (spent,) = connection.execute("SELECT spent_nano FROM totals").fetchone()
    (lost,) = connection.execute(f"SELECT coalesce(sum(a.reserved_nano), 0) FROM attempts a WHERE {_LOST}").fetchone()
    (at_fal,) = connection.execute(_AT_FAL).fetchone()
    return Purse(limit=limit, spent=spent, at_fal=at_fal, lost=lost)


def lost_submits(connection: sqlite3.Connection) -> list[LostSubmit]:
    """Submits that got no answer and whose request is not known; those under way now are none of them."""
    rows = connection.execute(
        "SELECT a.job_id, a.attempt, j.endpoint, j.input, a.started_at, a.ended_at, j.state, a.reserved_nano,"
        " a.named_id, j.mode, a.sent_sha256"
        f" FROM attempts a JOIN jobs j ON j.id = a.job_id WHERE {_LOST}"
        " AND NOT (j.state = 'submitting' AND a.attempt = j.attempts) ORDER BY a.started_at, a.job_id, a.attempt"
    )
    return [
        LostSubmit(
            job_id=job_id,
            attempt=attempt,
            endpoint=endpoint,
            input_json=bytes(given),
            left_at=started_at,
            given_up_at=started_at + SUBMIT_MOST_S if ended_at is None else ended_at,
            is_open=state in {State.UNKNOWN, State.PLANNED},
            is_unknown=state == State.UNKNOWN,
            reserved=reserved,
            named_id=named_id or "",
            mode=Mode(mode),
            sent_sha256=sent_sha256,
        )
        for job_id, attempt, endpoint, given, started_at, ended_at, state, reserved, named_id, mode, sent_sha256 in rows
    ]


def has_paid(connection: sqlite3.Connection) -> bool:
    """True when something is at fal, or is here without its files."""
    found = connection.execute(
        "SELECT 1 FROM jobs WHERE state IN ('submitted', 'completed') AND state <> 'done' LIMIT 1"
    )
    return found.fetchone() is not None


def has_unknown(connection: sqlite3.Connection) -> bool:
    """True when some job's submit got no answer; that of a run which was killed has none either."""
    found = connection.execute(
        "SELECT 1 FROM jobs WHERE state IN ('unknown', 'submitting') AND state <> 'done' LIMIT 1"
    ).fetchone()
    return found is not None


def known_requests(connection: sqlite3.Connection, request_ids: Collection[str]) -> set[str]:
    """Those of `request_ids` that are on record."""
    known: set[str] = set()
    for request_id in request_ids:
        known.update(*connection.execute("SELECT request_id FROM requests WHERE request_id = ?", (request_id,)))
    return known


def is_under_way(connection: sqlite3.Connection, endpoint: str, input_json: bytes) -> bool:
    """True while a submit of this very input waits for its answer."""
    return (
        connection.execute(
            "SELECT 1 FROM jobs WHERE state = 'submitting' AND state <> 'done' AND endpoint = ? AND input = ? LIMIT 1",
            (endpoint, input_json),
        ).fetchone()
        is not None
    )


def is_left_open(connection: sqlite3.Connection, job_id: int) -> bool:
    """True when the latest submit of a job that may have been accepted got no answer."""
    found = connection.execute(f"SELECT 1 FROM jobs WHERE id = ? AND {LEFT_OPEN}", (job_id,)).fetchone()
    return found is not None


def unsettled_endpoints(connection: sqlite3.Connection) -> list[str]:
    """The endpoints of jobs whose cost is still open."""
    rows = connection.execute(
        "SELECT DISTINCT endpoint FROM jobs WHERE state IN ('submitting', 'submitted', 'unknown') AND state <> 'done'"
        " ORDER BY endpoint"
    )
    return [row[0] for row in rows]


def prices(connection: sqlite3.Connection) -> dict[str, Price]:
    """fal's prices as they were last heard, by endpoint."""
    rows = connection.execute("SELECT endpoint, nano_per_unit, unit, at FROM prices")
    return {endpoint: Price(nano, unit, at) for endpoint, nano, unit, at in rows}


def keep_prices(connection: sqlite3.Connection, heard: Mapping[str, Price]) -> None:
    """Write prices that fal named. The caller holds a transaction."""
    connection.executemany(
        "INSERT OR REPLACE INTO prices (endpoint, nano_per_unit, unit, at) VALUES (?, ?, ?, ?)",
        [(endpoint, price.nano_per_unit, price.unit, price.at) for endpoint, price in heard.items()],
    )


def bills(connection: sqlite3.Connection, endpoint: str) -> list[tuple[bytes, float]]:
    """(input, billable units) of the dearest requests to `endpoint`: enough to know what the next may cost."""
    rows = connection.execute(
        "SELECT j.input, b.units FROM bills b JOIN jobs j ON j.id = b.job_id WHERE b.endpoint = ?"
        " ORDER BY b.units DESC",
        (endpoint,),
    )
    return [(bytes(given), units) for given, units in rows]


def learn(connection: sqlite3.Connection, bill: Bill) -> None:
    """Add a bill to what was learned. The caller holds a transaction."""
    connection.execute(
        "INSERT INTO learned (endpoint, measure, variant, seen, most, total, squares)"
        " VALUES (?1, ?2, ?3, 1, ?4, ?4, ?5) ON CONFLICT DO UPDATE SET seen = seen + 1,"
        " most = max(most, excluded.most), total = total + excluded.total, squares = squares + excluded.squares",
        (bill.endpoint, bill.measure, bill.variant, bill.rate, bill.rate * bill.rate),
    )


def learned(connection: sqlite3.Connection) -> dict[tuple[str, str], dict[str, Learned]]:
    """What was learned from bills over all runs that knew a price: by endpoint and measure, then by variant."""
    found: dict[tuple[str, str], dict[str, Learned]] = {}
    rows = connection.execute("SELECT endpoint, measure, variant, seen, most, total, squares FROM learned")
    for endpoint, measure, variant, *sums in rows:
        found.setdefault((endpoint, measure), {})[variant] = Learned(*sums)
    return found


def sample_bills(connection: sqlite3.Connection, endpoints: Collection[str]) -> dict[str, list[tuple[bytes, float]]]:
    """(input, billable units) of some requests to each of `endpoints`, at most `SAMPLE` each: for the mean; `bills` are
    for the most. Requests are looked through in the order of their ids, so that none is likelier than another."""
    found: dict[str, list[tuple[bytes, float]]] = {endpoint: [] for endpoint in endpoints}
    rows = connection.execute(
        "SELECT j.endpoint, j.input, r.billable_units FROM (SELECT job_id, billable_units FROM requests LIMIT ?) r"
        " JOIN jobs j ON j.id = r.job_id WHERE r.billable_units > 0",
        (LOOKED_THROUGH,),
    )
    for endpoint, given, units in rows:
        if endpoint in found and len(found[endpoint]) < SAMPLE:
            found[endpoint].append((bytes(given), units))
    return {endpoint: some or bills(connection, endpoint) for endpoint, some in found.items()}


def reserve_open(connection: sqlite3.Connection, expected: Callable[[str, bytes], int]) -> None:
    """Raise what is reserved for submits and requests whose end is open to what they are `expected(endpoint, input)` to
    cost: they may have left before a price was known. The caller holds a transaction."""
    rows = connection.execute(
        "SELECT a.job_id, a.attempt, a.reserved_nano, j.endpoint, j.input FROM attempts a"
        " JOIN jobs j ON j.id = a.job_id"
        f" WHERE {_LOST} UNION ALL"
        " SELECT a.job_id, a.attempt, a.reserved_nano, j.endpoint, j.input FROM jobs j"
        " JOIN requests r ON r.request_id = j.request_id"
        " JOIN attempts a ON a.job_id = r.job_id AND a.attempt = r.attempt WHERE j.state = 'submitted'"
        " AND j.state <> 'done'"
    ).fetchall()
    raised = [
        (amount, job_id, attempt)
        for job_id, attempt, reserved, endpoint, given in rows
        if (amount := expected(endpoint, bytes(given))) > reserved
    ]
    connection.executemany("UPDATE attempts SET reserved_nano = ? WHERE job_id = ? AND attempt = ?", raised)


def price_ended(connection: sqlite3.Connection, tariffs: Iterable[tuple[str, Price]]) -> None:
    """Reckon requests that ended before their price was known. The caller holds a transaction."""
    for endpoint, price in tariffs:
        rows = connection.execute(
            "SELECT r.request_id, r.billable_units FROM requests r JOIN jobs j ON j.id = r.job_id"
            " WHERE r.cost_nano IS NULL AND r.billable_units IS NOT NULL AND j.endpoint = ?",
            (endpoint,),
        ).fetchall()
        connection.executemany(
            "UPDATE requests SET cost_nano = ? WHERE request_id = ?",
            [(price.of(units), request_id) for request_id, units in rows],
        )
