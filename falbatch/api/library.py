"""What a program without an event loop calls (design §8). Each function loads only what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from falbatch.api.options import RunOptions
    from falbatch.api.planning import Selection
    from falbatch.core.events import Listener
    from falbatch.core.plan import Plan, PlannedJob
    from falbatch.core.report import Report


def run(manifest: str | Path, options: RunOptions | None = None, *, listen: Listener | None = None) -> Report:
    """`arun` for programs without an event loop."""
    import anyio

    from falbatch.api.running import arun

    return anyio.run(lambda: arun(manifest, options, listen=listen))


def plan(
    manifest: str | Path,
    *,
    selection: Selection | None = None,
    output: Path | None = None,
    each: Callable[[PlannedJob], None] | None = None,
    sandbox: bool = False,
    offline: bool = False,
    validate: bool = True,
    key_file: Path | None = None,
) -> Plan:
    """What `run` would do now, without doing it. `each` sees every job, in the manifest's order.

    fal (with `sandbox` a local emulator) is asked for the endpoints' schemas and, where there is a key, prices, unless
    they were heard within a day; with `offline` nobody is asked. With `validate` inputs are checked against them.
    Raises `ManifestError` with every problem found. Nothing is written but a cache of what fal said.
    """
    import os

    from falbatch.api.offline import check_endpoint, target_kind
    from falbatch.api.planning import Selection, make_plan
    from falbatch.api.quoting import Asker
    from falbatch.api.workspace import open_manifest

    workspace = open_manifest(Path(manifest), output=output, tells_later=True)
    budget = workspace.manifest.budget if workspace.manifest else None
    validates = validate and (workspace.manifest is None or workspace.manifest.validate.is_on)
    asker = Asker(budget, is_sandbox=sandbox, is_offline=offline, key_file=key_file, validates=validates)
    return make_plan(
        workspace,
        selection or Selection(),
        check_endpoint,
        each=each,
        learn=asker.ask,
        validates=validate,
        here=target_kind(os.environ, sandbox=sandbox),
    )
