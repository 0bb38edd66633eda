"""The tables of the state file, as the scripts that made them, one for each version of the format."""

from __future__ import annotations

from typing import Final

# Each entry brings a file from the version of its index to the next. Never edit one that was released: append.
MIGRATIONS: Final[tuple[str, ...]] = (
    """
    CREATE TABLE batch (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        name TEXT NOT NULL,            -- the manifest's name: a file of another batch is refused
        target TEXT NOT NULL,          -- 'fal', 'loopback' or 'sandbox': rehearsals are never mixed with paid work
        manifest TEXT NOT NULL,        -- where the manifest was at the last run, for people
        created_at REAL NOT NULL,
        runner TEXT NOT NULL           -- who holds the lock, for the message to a second runner
    );
    CREATE TABLE jobs (
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,
        seq INTEGER,                   -- place in the manifest as last planned; NULL: no longer in it
        step TEXT NOT NULL DEFAULT '', -- '' for the only step of an item
        name TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        mode TEXT NOT NULL,
        input BLOB NOT NULL,           -- canonical JSON, as sent
        replica INTEGER NOT NULL,
        origin TEXT NOT NULL,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0, -- failed requests since the job was planned or reopened
        request_id TEXT,               -- the latest request
        error_type TEXT,
        error TEXT,
        http_status INTEGER,
        updated_at REAL NOT NULL
    );
    CREATE INDEX jobs_by_state ON jobs (state, seq);
    CREATE TABLE attempts (
        job_id INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        started_at REAL NOT NULL,
        ended_at REAL,
        outcome TEXT,                  -- NULL: the program ended before an answer came
        error TEXT,
        PRIMARY KEY (job_id, attempt)
    ) WITHOUT ROWID;
    CREATE TABLE requests (
        request_id TEXT PRIMARY KEY,
        job_id INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        status_url TEXT NOT NULL,
        response_url TEXT NOT NULL,
        cancel_url TEXT NOT NULL,
        status TEXT NOT NULL,          -- accepted, completed, failed, cancelled
        queue_position INTEGER,        -- as told at submit
        accepted_at REAL NOT NULL,
        ended_at REAL,
        http_status INTEGER,
        error_type TEXT,
        inference_s REAL,
        billable_units REAL,
        cost REAL
    ) WITHOUT ROWID;
    CREATE INDEX requests_by_job ON requests (job_id);
    CREATE TABLE results (
        job_id INTEGER PRIMARY KEY,
        request_id TEXT NOT NULL,
        content_type TEXT NOT NULL,
        body BLOB NOT NULL             -- as fal gave it
    );
    CREATE TABLE artifacts (
        job_id INTEGER NOT NULL,
        place INTEGER NOT NULL,
        path TEXT NOT NULL,            -- relative to the output folder
        path_fold TEXT NOT NULL UNIQUE,-- the same for case-insensitive disks
        url TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        sha256 BLOB NOT NULL,
        content_type TEXT NOT NULL,
        stored INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (job_id, place)
    ) WITHOUT ROWID;
    CREATE TABLE uploads (
        sha256 BLOB PRIMARY KEY,
        url TEXT NOT NULL,
        uploaded_at REAL NOT NULL,
        expires_at REAL
    ) WITHOUT ROWID;
    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        job_id INTEGER,
        event TEXT NOT NULL,
        detail TEXT
    );
    CREATE TABLE selection (job_id INTEGER PRIMARY KEY); -- the jobs of a run with --limit, --sample or --where
    """,
    """
    ALTER TABLE attempts ADD COLUMN reserved_nano INTEGER NOT NULL DEFAULT 0; -- nano-dollars expected at its submit
    ALTER TABLE attempts ADD COLUMN named_id TEXT;   -- a request id that came with an error
    -- The submits whose fate is open; a run over a million jobs has few of them.
    CREATE INDEX attempts_open ON attempts (job_id) WHERE outcome IS NULL OR outcome = 'no_answer';
    ALTER TABLE requests DROP COLUMN cost;
    ALTER TABLE requests ADD COLUMN cost_nano INTEGER; -- NULL: not ended, or no price is known
    CREATE TABLE prices (
        endpoint TEXT PRIMARY KEY,
        nano_per_unit INTEGER NOT NULL,
        unit TEXT NOT NULL,
        at REAL NOT NULL               -- when fal said so
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE results ADD COLUMN events BLOB;      -- of a stream, as JSON lines
    ALTER TABLE attempts ADD COLUMN sent_sha256 BLOB; -- of the body that left, where it is not the job's input
    ALTER TABLE batch ADD COLUMN callback_secret BLOB; -- makes the tokens in callback URLs; NULL before the first
    ALTER TABLE uploads RENAME TO old_uploads;
    CREATE TABLE uploads (           -- every URL of every content: a result may name an old one
        sha256 BLOB NOT NULL,
        url TEXT NOT NULL,
        content_type TEXT NOT NULL,  -- as the input asks, '' where it does not
        terms TEXT NOT NULL,         -- where to, and for how long
        size_bytes INTEGER NOT NULL,
        uploaded_at REAL NOT NULL,
        expires_at REAL,             -- NULL: never
        PRIMARY KEY (sha256, url)
    ) WITHOUT ROWID;
    INSERT INTO uploads SELECT sha256, url, '', '', 0, uploaded_at, expires_at FROM old_uploads;
    DROP TABLE old_uploads;
    CREATE TABLE local_files (       -- what files of inputs held when they were last read
        path TEXT PRIMARY KEY,       -- absolute
        name TEXT NOT NULL,          -- as the manifest or its rows write it
        size_bytes INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        ctime_ns INTEGER NOT NULL,
        hashed_ns INTEGER NOT NULL,  -- when it was read
        sha256 BLOB NOT NULL,
        seal BLOB NOT NULL           -- over all the others: a garbled row would make a paid job look new
    ) WITHOUT ROWID;
    CREATE INDEX local_files_by_content ON local_files (sha256);
    """,
    """
    ALTER TABLE batch ADD COLUMN sources BLOB;       -- digest of what the last whole plan was made from, or NULL
    CREATE TABLE durations (         -- how long an endpoint's requests take
        endpoint TEXT PRIMARY KEY,
        sketch BLOB NOT NULL,
        at REAL NOT NULL
    ) WITHOUT ROWID;

    -- Of a million jobs most are done, and nobody looks for those by their state: they are in no index. A question that
    -- is to use one of these names its condition word for word.
    DROP INDEX jobs_by_state;
    CREATE INDEX jobs_open ON jobs (state, seq) WHERE state <> 'done';
    CREATE INDEX jobs_planned ON jobs (endpoint, seq) WHERE state = 'planned';
    UPDATE jobs SET error_type = 'error' WHERE error IS NOT NULL AND error_type IS NULL;
    CREATE INDEX jobs_blamed ON jobs (state, error_type, seq) WHERE error_type IS NOT NULL;
    CREATE INDEX jobs_left ON jobs (seq, state) WHERE seq IS NULL;
    -- How many there are is their highest id, as long as none is ever taken away.
    CREATE TRIGGER jobs_stay BEFORE DELETE ON jobs BEGIN SELECT RAISE(ABORT, 'a job is never forgotten'); END;
    CREATE INDEX requests_unpriced ON requests (job_id) WHERE cost_nano IS NULL AND billable_units IS NOT NULL;

    -- What other tables say is not said again: a result is that of its job's request, a file's URL is in the result,
    -- and the URLs of an endpoint's requests differ in nothing but the id.
    CREATE TABLE addresses (
        id INTEGER PRIMARY KEY,
        status_url TEXT NOT NULL,    -- with {} in place of the request's id
        response_url TEXT NOT NULL,
        cancel_url TEXT NOT NULL,
        UNIQUE (status_url, response_url, cancel_url)
    );
    ALTER TABLE requests ADD COLUMN address INTEGER; -- NULL: the URLs are in the row
    ALTER TABLE results DROP COLUMN request_id;
    ALTER TABLE artifacts RENAME TO old_artifacts;
    CREATE TABLE artifacts (
        job_id INTEGER NOT NULL,
        place INTEGER NOT NULL,
        path TEXT NOT NULL,          -- relative to the output folder
        path_fold TEXT,              -- the same for case-insensitive disks, where that is another text
        size_bytes INTEGER NOT NULL,
        sha256 BLOB NOT NULL,
        content_type TEXT NOT NULL,
        stored INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (job_id, place)
    ) WITHOUT ROWID;
    INSERT INTO artifacts SELECT job_id, place, path, nullif(path_fold, path), size_bytes, sha256, content_type, stored
        FROM old_artifacts;
    DROP TABLE old_artifacts;
    CREATE UNIQUE INDEX artifacts_by_path ON artifacts (coalesce(path_fold, path));

    -- Sums over all rows, kept by the triggers below whoever writes: a million rows are not added up for a status.
    CREATE TABLE totals (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        happened INTEGER NOT NULL,   -- grows with all that happens: of two copies of this file the later one has more
        submits INTEGER NOT NULL,    -- rows of attempts
        executions INTEGER NOT NULL, -- rows of requests
        units REAL NOT NULL,         -- billable units, for people: added up in another order they differ by a hair
        spent_nano INTEGER NOT NULL, -- 9e18 at most: nine billion dollars are some server's mistake
        priced INTEGER NOT NULL,     -- ended requests that cost something
        unpriced INTEGER NOT NULL,   -- ended requests of which no price is known
        files INTEGER NOT NULL,      -- stored artifacts
        bytes INTEGER NOT NULL
    );
    INSERT INTO totals SELECT 1, (SELECT coalesce(max(id), 0) FROM events), (SELECT count(*) FROM attempts), r.*, a.*
        FROM (SELECT count(*), total(billable_units),
            min(9000000000000000000, coalesce(sum(cost_nano / 1000000000), 0) * 1000000000
                + coalesce(sum(cost_nano % 1000000000), 0)),
            count(CASE WHEN ended_at IS NOT NULL AND cost_nano > 0 THEN 1 END),
            count(CASE WHEN ended_at IS NOT NULL AND cost_nano IS NULL THEN 1 END) FROM requests) r,
        (SELECT count(*), coalesce(sum(size_bytes), 0) FROM artifacts WHERE stored = 1) a;
    CREATE TABLE bills (             -- the dearest requests to each endpoint, from which the next ones' cost is learned
        endpoint TEXT NOT NULL,
        units REAL NOT NULL,
        job_id INTEGER NOT NULL,
        PRIMARY KEY (endpoint, units, job_id)
    ) WITHOUT ROWID;
    CREATE TABLE bill_floors (       -- what a request must be billed more than to be among them, once there are enough
        endpoint TEXT PRIMARY KEY,
        units REAL NOT NULL
    ) WITHOUT ROWID;
    INSERT OR IGNORE INTO bills SELECT endpoint, billable_units, job_id FROM
        (SELECT j.endpoint, r.billable_units, r.job_id,
            row_number() OVER (PARTITION BY j.endpoint ORDER BY r.billable_units DESC) AS place
            FROM requests r JOIN jobs j ON j.id = r.job_id WHERE r.billable_units > 0)
        WHERE place <= 500;
    INSERT INTO bill_floors SELECT endpoint, min(units) FROM bills GROUP BY endpoint HAVING count(*) = 500;
    CREATE TRIGGER bills_learn AFTER UPDATE OF billable_units ON requests WHEN NEW.billable_units > 0 BEGIN
        INSERT OR IGNORE INTO bills SELECT j.endpoint, NEW.billable_units, j.id FROM jobs j WHERE j.id = NEW.job_id
            AND NEW.billable_units > coalesce((SELECT f.units FROM bill_floors f WHERE f.endpoint = j.endpoint), 0);
    END;
    CREATE TRIGGER bills_forget AFTER INSERT ON bills
        WHEN (SELECT count(*) FROM bills WHERE endpoint = NEW.endpoint) > 500 BEGIN
        DELETE FROM bills WHERE (endpoint, units, job_id) =
            (SELECT endpoint, units, job_id FROM bills WHERE endpoint = NEW.endpoint ORDER BY units, job_id LIMIT 1);
        INSERT OR REPLACE INTO bill_floors
            SELECT endpoint, min(units) FROM bills WHERE endpoint = NEW.endpoint;
    END;
    CREATE TRIGGER events_in AFTER INSERT ON events BEGIN
        UPDATE totals SET happened = happened + 1;
    END;
    CREATE TRIGGER attempts_in AFTER INSERT ON attempts BEGIN
        UPDATE totals SET submits = submits + 1;
    END;
    CREATE TRIGGER requests_in AFTER INSERT ON requests BEGIN
        UPDATE totals SET executions = executions + 1,
            units = units + coalesce(NEW.billable_units, 0),
            spent_nano = min(9000000000000000000, spent_nano + coalesce(NEW.cost_nano, 0)),
            priced = priced + (NEW.ended_at IS NOT NULL AND coalesce(NEW.cost_nano, 0) > 0),
            unpriced = unpriced + (NEW.ended_at IS NOT NULL AND NEW.cost_nano IS NULL);
    END;
    CREATE TRIGGER requests_change AFTER UPDATE OF ended_at, billable_units, cost_nano ON requests BEGIN
        UPDATE totals SET
            units = units + coalesce(NEW.billable_units, 0) - coalesce(OLD.billable_units, 0),
            spent_nano = min(9000000000000000000, spent_nano + coalesce(NEW.cost_nano, 0) - coalesce(OLD.cost_nano, 0)),
            priced = priced + (NEW.ended_at IS NOT NULL AND coalesce(NEW.cost_nano, 0) > 0)
                - (OLD.ended_at IS NOT NULL AND coalesce(OLD.cost_nano, 0) > 0),
            unpriced = unpriced + (NEW.ended_at IS NOT NULL AND NEW.cost_nano IS NULL)
                - (OLD.ended_at IS NOT NULL AND OLD.cost_nano IS NULL);
    END;
    CREATE TRIGGER artifacts_in AFTER INSERT ON artifacts WHEN NEW.stored = 1 BEGIN
        UPDATE totals SET files = files + 1, bytes = bytes + NEW.size_bytes;
    END;
    CREATE TRIGGER artifacts_change AFTER UPDATE OF stored, size_bytes ON artifacts
        WHEN NEW.stored <> OLD.stored OR NEW.size_bytes <> OLD.size_bytes BEGIN
        UPDATE totals SET files = files + NEW.stored - OLD.stored,
            bytes = bytes + NEW.stored * NEW.size_bytes - OLD.stored * OLD.size_bytes;
    END;
    CREATE TRIGGER artifacts_out AFTER DELETE ON artifacts WHEN OLD.stored = 1 BEGIN
        UPDATE totals SET files = files - 1, bytes = bytes - OLD.size_bytes;
    END;
    """,
    """
    ALTER TABLE jobs ADD COLUMN roll INTEGER NOT NULL DEFAULT 0; -- re-rolls that were granted to it
    ALTER TABLE jobs ADD COLUMN marked TEXT; -- flags for which it is told apart, separated by commas, or NULL
    ALTER TABLE jobs ADD COLUMN unjudged INTEGER NOT NULL DEFAULT 0; -- 1: nobody has said yet what its result is worth
    CREATE INDEX jobs_marked ON jobs (marked, seq) WHERE marked IS NOT NULL;
    ALTER TABLE attempts ADD COLUMN seed INTEGER; -- what left in place of the input's seed; NULL: that did
    ALTER TABLE requests ADD COLUMN flagged TEXT; -- JSON: what was noticed about its result, or NULL
    ALTER TABLE artifacts ADD COLUMN black INTEGER NOT NULL DEFAULT 0; -- 1: a picture that is all black
    CREATE TABLE learned (           -- what jobs were billed per unit of their size: a limit on cost must not forget it
        endpoint TEXT NOT NULL,
        measure TEXT NOT NULL,       -- what sizes are counted in
        variant TEXT NOT NULL,
        seen INTEGER NOT NULL,       -- jobs
        most REAL NOT NULL,
        total REAL NOT NULL,
        squares REAL NOT NULL,       -- over their rates, and the squares of these
        PRIMARY KEY (endpoint, measure, variant)
    ) WITHOUT ROWID;
    CREATE TABLE aside (             -- of jobs that are run again: the result that was not taken, until one is
        job_id INTEGER PRIMARY KEY,
        request_id TEXT NOT NULL,
        content_type TEXT NOT NULL,
        body BLOB NOT NULL,
        events BLOB
    );
    CREATE TABLE aside_files (       -- its files, as in `artifacts`
        job_id INTEGER NOT NULL,
        place INTEGER NOT NULL,
        path TEXT NOT NULL,
        path_fold TEXT,
        size_bytes INTEGER NOT NULL,
        sha256 BLOB NOT NULL,
        content_type TEXT NOT NULL,
        black INTEGER NOT NULL,
        PRIMARY KEY (job_id, place)
    ) WITHOUT ROWID;
    CREATE TRIGGER aside_ends AFTER UPDATE OF state ON jobs WHEN NEW.state = 'done' BEGIN
        DELETE FROM aside WHERE job_id = NEW.id;
        DELETE FROM aside_files WHERE job_id = NEW.id;
    END;
    CREATE TABLE canary (job_id INTEGER PRIMARY KEY); -- the jobs that a run with --canary tries; empty after any other
    """,
)

SCHEMA_VERSION: Final = len(MIGRATIONS)
