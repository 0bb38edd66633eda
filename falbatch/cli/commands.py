"""One function per command: call the library, render, return the exit code."""

from __future__ import annotations

import csv
import json
import signal
import sys
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Any, Final, Self

import anyio

from falbatch.adapters.files import translated
from falbatch.adapters.progress import ProgressDisplay, words_of
from falbatch.api import again, batch, planning, reconciling, running
from falbatch.api.workspace import open_manifest
from falbatch.cli import render
from falbatch.core.plan import Action, Plan, PlannedJob
from falbatch.core.problems import nearest_or_list
from falbatch.core.report import Report, status_json
from falbatch.core.state import State
from falbatch.errors import ExitCode, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from falbatch.core.events import Counter, RunEvent


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _print_json(record: dict[str, Any]) -> None:
    print(json.dumps(record, ensure_ascii=False))


def _selection(options: argparse.Namespace) -> planning.Selection:
    return planning.Selection(where=options.where, limit=options.limit, sample=options.sample)


def do_run(options: argparse.Namespace) -> int:
    """`falbatch run`."""
    return _perform(options, _selection(options), again.RetryChoice() if options.retry_failed else None)


def do_retry(options: argparse.Namespace) -> int:
    """`falbatch retry`: a run that does what was chosen again."""
    choice = again.RetryChoice(tuple(options.type), tuple(options.name), options.missing_files)
    return _perform(options, planning.Selection(), choice)


def _perform(options: argparse.Namespace, selection: planning.Selection, retry: again.RetryChoice | None) -> int:
    run_options = running.RunOptions(
        selection=selection,
        output=options.output,
        key_file=options.key_file,
        sandbox=options.sandbox,
        retry=retry,
        resubmit_unknown=options.resubmit_unknown,
        max_cost=options.max_cost,
        reconcile_s=options.reconcile_s,
        webhook_listen=options.webhook_listen,
        webhook_url=options.webhook_url,
        watch_signals=True,
    )
    with _Display(is_json=options.json) as display:
        report = anyio.run(
            lambda: running.arun(
                options.manifest,
                run_options,
                listen=display.hear,
                confirm=None if options.yes else _confirm,
                on_plan=display.begin,
            )
        )
    _show_report(report, is_json=options.json)
    return int(report.exit_code)


def _show_report(report: Report, *, is_json: bool) -> None:
    if is_json:
        _print_json(report.as_json())
    else:
        _print_lines(render.report_lines(report))


class _Display:
    """The progress of one run, from the moment its plan is known."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        self._stack = ExitStack()
        self._show: Callable[[RunEvent], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def begin(self, plan: Plan, counter: Counter) -> None:
        """Say what will be done, then follow it."""
        if self._is_json:
            _print_json(plan.as_json())
        doing = ", ".join(f"{action.value} {count:,}" for action, count in plan.actions.items() if count)
        print(f"{plan.name}: {plan.total:,} jobs: {doing}", file=sys.stderr)
        if plan.resubmitted:
            print(render.resubmit_warning(plan), file=sys.stderr)
        self._show = self._stack.enter_context(ProgressDisplay(counter))

    def hear(self, event: RunEvent) -> None:
        """Pass an event on to the bar."""
        if self._show is not None:
            self._show(event)
        elif text := words_of(event):
            print(text, file=sys.stderr)


def _confirm(plan: Plan) -> bool:
    """Ask before money is spent; without a terminal somebody must have said so beforehand."""
    count = plan.actions[Action.SUBMIT]
    if not sys.stdin.isatty():
        raise UsageError(
            f"{count:,} jobs would be submitted to fal and billed, and there is no terminal to ask at",
            advice="Give --yes, or look first with `falbatch plan`.",
        )
    if plan.resubmitted:
        print(render.resubmit_warning(plan), file=sys.stderr)
    print(f"Submit {count:,} jobs to fal? They will be billed. [y/N] ", end="", file=sys.stderr, flush=True)
    # Nothing runs yet: a Ctrl-C here means no, at once, and not what the event loop makes of it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return sys.stdin.readline().strip().lower() in {"y", "yes"}
    finally:
        signal.signal(signal.SIGINT, before)


def do_plan(options: argparse.Namespace) -> int:
    """`falbatch plan`."""
    workspace = open_manifest(options.manifest, output=options.output)
    each: Callable[[PlannedJob], None] | None = (lambda job: _print_json(job.as_json())) if options.json else None
    plan = planning.make_plan(workspace, _selection(options), running.check_endpoint, each=each)
    if options.json:
        _print_json(plan.as_json())
    else:
        _print_lines(render.plan_lines(plan))
    return int(ExitCode.OK)


def do_status(options: argparse.Namespace) -> int:
    """`falbatch status`."""
    status = batch.status(options.manifest, output=options.output)
    if options.json:
        _print_json({"event": "status", **status_json(status)})
    else:
        _print_lines(render.status_lines(status))
    return int(ExitCode.OK)


def do_reconcile(options: argparse.Namespace) -> int:
    """`falbatch reconcile`."""
    display = _Display(is_json=options.json)
    report = anyio.run(
        lambda: reconciling.reconcile(
            options.manifest,
            output=options.output,
            key_file=options.key_file,
            wait_s=options.reconcile_s,
            listen=display.hear,
            watch_signals=True,
        )
    )
    _show_report(report, is_json=options.json)
    return int(report.exit_code)


def do_cancel(options: argparse.Namespace) -> int:
    """`falbatch cancel`."""

    async def cancel() -> batch.CancelReport:
        return await batch.cancel(
            options.manifest, output=options.output, key_file=options.key_file, names=tuple(options.name)
        )

    report = anyio.run(cancel)
    if options.json:
        _print_json(
            {
                "event": "cancel",
                "asked": report.asked,
                "accepted": report.accepted,
                "too_late": report.too_late,
                "unknown": report.unknown,
                "refused": [{"name": name, "why": why} for name, why in report.refused],
                "mode": report.mode.value,
            }
        )
    else:
        _print_lines(_cancel_lines(report))
    return int(ExitCode.INCOMPLETE if report.refused else ExitCode.OK)


def _cancel_lines(report: batch.CancelReport) -> Iterator[str]:
    if report.mode.is_direct:
        yield f"mode {report.mode.value}: direct calls cannot be cancelled; a stopped run waits for their answers"
    if report.asked == 0:
        yield "nothing of this batch is at fal"
        return
    yield f"asked fal to cancel {report.asked:,} requests"
    yield f"  {report.accepted:>9,}  accepted (what was running may still finish, and is billed then)"
    yield f"  {report.too_late:>9,}  had finished before; the next run brings their results"
    if report.unknown:
        yield f"  {report.unknown:>9,}  are not known to fal any more"
    for name, why in report.refused:
        yield f"  could not ask about {name}: {why}"
    yield "the next `falbatch run` reads what became of them"


def do_export(options: argparse.Namespace) -> int:
    """`falbatch export`."""
    states = tuple(_state(word) for word in options.state) or (State.DONE,)

    def records() -> Iterator[dict[str, Any]]:
        return batch.export(options.manifest, output=options.output, states=states)

    is_csv = (options.format or ("csv" if str(options.to or "").endswith(".csv") else "jsonl")) == "csv"
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
    temporary = path.with_name(path.name + ".part")
    with translated(path):
        try:
            with temporary.open("w", encoding="utf-8", newline="") as stream:
                yield stream
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


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


def do_sandbox(options: argparse.Namespace) -> int:
    """`falbatch sandbox`."""
    from falbatch.sandbox.flags import settings_from
    from falbatch.sandbox.serve import serve

    serve(settings_from(options))
    return int(ExitCode.OK)


HANDLERS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "run": do_run,
    "plan": do_plan,
    "status": do_status,
    "retry": do_retry,
    "reconcile": do_reconcile,
    "cancel": do_cancel,
    "export": do_export,
    "sandbox": do_sandbox,
}
