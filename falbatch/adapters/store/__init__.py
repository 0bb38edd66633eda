"""The state file: SQLite in WAL mode, one writer with group commit, many readers (design §5.1).

`database` opens and migrates, `stage` holds a plan beside the state, `writer` records what happens to jobs,
`reader` answers questions. No sqlite3 exception leaves this package.
"""
