"""The manifests that the benchmarks run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from falbatch.core.limits import LimitsSpec

if TYPE_CHECKING:
    from pathlib import Path

ENDPOINT: Final = "fal-ai/flux/schnell"

WANTED_RATE: Final = 100_000
"""Calls per second: no limit, if the manifest takes it."""


def fastest_rate() -> int:
    """The highest rate that a manifest may name, so that no limit of the user's is what is measured."""
    field = LimitsSpec.model_fields["submits_per_s"]
    most = [limit.le for limit in field.metadata if hasattr(limit, "le")]
    return int(min([WANTED_RATE, *most]))


def job_manifest(folder: Path, jobs: int, in_flight: int, *, downloads: int | None = None) -> Path:
    """A batch of `jobs` small jobs, in `folder`; its files go to `folder/out`."""
    more = "" if downloads is None else f", downloads: {downloads}"
    rate = fastest_rate()
    manifest = folder / "bench.yaml"
    manifest.write_text(
        f"""\
version: 1
endpoint: {ENDPOINT}
rows: {{range: [0, {jobs}]}}
input: {{prompt: "bench {{{{ row.value }}}}", seed: "{{{{ row.value }}}}"}}
output: {{dir: out, name: "{{{{ row.value // 1000 }}}}/{{{{ row.value }}}}"}}
limits: {{in_flight: {in_flight}, submits_per_s: {rate}, polls_per_s: {rate}{more}}}
""",
        encoding="utf-8",
    )
    return manifest


def grid_manifest(folder: Path, rows: int, values: int) -> Path:
    """`rows` lines of a CSV file × `values` values of a matrix, as a user with a big list has them."""
    with (folder / "rows.csv").open("w", encoding="utf-8") as lines:
        lines.write("id,subject,place\n")
        lines.writelines(f"r{number},a {number} year old oak,forest {number % 97}\n" for number in range(rows))
    manifest = folder / "grid.yaml"
    styles = ", ".join(f"style {number}" for number in range(values))
    manifest.write_text(
        f"""\
version: 1
endpoint: {ENDPOINT}
rows: rows.csv
matrix: {{style: [{styles}]}}
input: {{prompt: "{{{{ row.subject }}}} in {{{{ row.place }}}}, {{{{ style }}}}", num_images: 1}}
output: {{dir: out, name: "{{{{ row.id }}}}/{{{{ style }}}}"}}
""",
        encoding="utf-8",
    )
    return manifest
