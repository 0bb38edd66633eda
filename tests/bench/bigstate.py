"""A state file with a million finished jobs, made in a minute or two: planned as a run plans, finished in SQL.

python -m tests.bench.bigstate FOLDER [FINISHED [OPEN]]
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from falbatch.adapters.store import journal
from falbatch.adapters.store.journal import copy_path
from falbatch.adapters.store.store import Store
from falbatch.api.planning import Selection, settle_jobs
from falbatch.api.workspace import open_manifest
from tests.bench.manifests import ENDPOINT

AT: Final = 1_780_000_000.0
"""Unix seconds at which the first of the jobs was submitted; the others came every 10 ms."""

COST_NANO: Final = 25_000_000
"""Of one job."""

NAME: Final = "big"

_PROMPT: Final = (
    "a photograph of {{ row.value }} paper kites over a harbour at dawn, long exposure, soft light, film grain"
)

_MANIFEST: Final = """\
version: 1
name: {name}
endpoint: {endpoint}
rows: {{range: [0, {jobs}]}}
input: {{prompt: "{prompt}", image_size: square_hd, num_images: 1, seed: "{{{{ row.value }}}}"}}
output: {{dir: out, name: "kites/{{{{ row.value // 1000 }}}}/{{{{ row.value }}}}"}}
"""

_CAME_HOME: Final = (
    "CREATE TEMP TABLE ids (job_id INTEGER PRIMARY KEY, request_id TEXT)",
    # A request id is random, as fal's are: its rows come in no order.
    """
    INSERT INTO temp.ids SELECT id, lower(format('%s-%s-4%s-a%s-%s', hex(randomblob(4)), hex(randomblob(2)),
        substr(hex(randomblob(2)), 2), substr(hex(randomblob(2)), 2), hex(randomblob(6)))) FROM jobs WHERE id <= ?1
    """,
    """
    INSERT INTO addresses VALUES
        (1, ?2 || '/requests/{}/status', ?2 || '/requests/{}', ?2 || '/requests/{}/cancel')
    """,
    """
    INSERT INTO attempts (job_id, attempt, started_at, ended_at, outcome, reserved_nano)
        SELECT id, 1, ?3 + id / 100.0, ?3 + id / 100.0 + 0.2, 'accepted', ?4 FROM jobs WHERE id <= ?1
    """,
    """
    INSERT INTO requests (request_id, job_id, attempt, status_url, response_url, cancel_url, status, queue_position,
            accepted_at, ended_at, http_status, inference_s, billable_units, cost_nano, address)
        SELECT request_id, job_id, 1, '', '', '', 'completed', 0,
            ?3 + job_id / 100.0 + 0.2, ?3 + job_id / 100.0 + 3, 200, 2.5, 1.0, ?4, 1 FROM temp.ids ORDER BY request_id
    """,
    "INSERT INTO bills SELECT endpoint, 1.0, id FROM jobs WHERE id <= min(?1, 500)",
    "INSERT INTO bill_floors SELECT endpoint, 1.0 FROM jobs WHERE id = 500",
    """
    INSERT INTO results (job_id, content_type, body) SELECT id, 'application/json', CAST(format(
        '{"images":[{"url":"https://v3.fal.media/files/lion/%s_%d.png","width":1024,"height":1024,'
        || '"content_type":"image/png"}],"timings":{"inference":2.5},"seed":%d,"has_nsfw_concepts":[false]}',
        hex(randomblob(10)), id, id) AS BLOB) FROM jobs WHERE id <= ?1
    """,
    """
    INSERT INTO artifacts (job_id, place, path, size_bytes, sha256, content_type, stored)
        SELECT id, 0, name || '.png', 20480, randomblob(32), 'image/png', 1 FROM jobs WHERE id <= ?1
    """,
    """
    UPDATE jobs SET state = 'done', attempts = 1, updated_at = ?3 + id / 100.0 + 4,
        request_id = (SELECT request_id FROM temp.ids WHERE job_id = id) WHERE id <= ?1
    """,
    "UPDATE totals SET happened = happened + 5 * ?1",
)
"""How a job ends well, for all of them at once. ?1: how many; ?2: where requests are; ?3: when; ?4: what one costs."""


def build(folder: Path, *, finished: int = 1_000_000, still_open: int = 1_000, target: str = "loopback") -> Path:
    """A batch in `folder` of which `finished` jobs are done and `still_open` planned, as its last run left it: with the
    copy of its state file, and a journal that begins there. Returns the manifest; the state file is
    `out/falbatch.db`. The files of the jobs are not there.
    """
    manifest = folder / "big.yaml"
    text = _MANIFEST.format(name=NAME, endpoint=ENDPOINT, jobs=finished + still_open, prompt=_PROMPT)
    manifest.write_text(text, encoding="utf-8")
    workspace = open_manifest(manifest)
    workspace.output.mkdir(parents=True)
    with Store.open(workspace.state) as store:
        planned = settle_jobs(store.connection, workspace, Selection(), lambda _endpoint: None)
        store.begin(name=NAME, target=target, manifest=str(manifest), at=AT, jobs=planned.jobs, basis=planned.basis)
    with closing(sqlite3.connect(workspace.state, isolation_level=None)) as connection:
        _finish(connection, finished)
        age = journal.age_of(connection)
    shutil.copyfile(workspace.state, copy_path(workspace.state))
    os.chmod(copy_path(workspace.state), 0o600)  # noqa: PTH101
    journal.begin(workspace.state, age)
    return manifest


def _finish(connection: sqlite3.Connection, count: int) -> None:
    # This is a file that is made, not one that is worked with: speed is all.
    connection.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -200000; BEGIN")
    origin = f"https://queue.fal.run/{ENDPOINT}"
    parameters = (count, origin, AT, COST_NANO)
    for statement in _CAME_HOME:
        wanted = max((number for number in range(1, 5) if f"?{number}" in statement), default=0)
        connection.execute(statement, parameters[:wanted])
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def main() -> None:
    """Build one and say where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("finished", type=int, nargs="?", default=1_000_000)
    parser.add_argument("still_open", type=int, nargs="?", default=1_000)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    print(build(asked.folder, finished=asked.finished, still_open=asked.still_open))


if __name__ == "__main__":
    main()
