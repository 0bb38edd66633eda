"""Run a manifest from a program, against the built-in sandbox, and look at the report."""

from pathlib import Path

import falbatch

manifest = Path(__file__).with_name("kites.yaml")
report = falbatch.run(manifest, falbatch.RunOptions(sandbox=True))
print(f"{report.status.count(falbatch.State.DONE)} of {report.status.total} pictures in {report.output_dir}")
