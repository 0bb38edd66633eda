"""Commands that talk to fal about a batch. One function each: call the library, render, return the exit code."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self

import anyio

from falbatch.adapters.progress import ProgressDisplay, words_of
from falbatch.api import again, cancelling, planning, reconciling, running
from falbatch.api.options import RunOptions
from falbatch.cli import render
from falbatch.cli.printing import print_json, print_lines
from falbatch.core.plan import Action, Plan
from falbatch.errors import ExitCode, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from falbatch.core.events import Counter, RunEvent
    from falbatch.core.report import Report


def do_run(options: argparse.Namespace) -> int:
    """`falbatch run`."""
    selection = planning.Selection(where=options.where, limit=options.limit, sample=options.sample)
    return _perform(options, selection, again.RetryChoice() if options.retry_failed else None)


def do_retry(options: argparse.Namespace) -> int:
    """`falbatch retry`: a run that does what was chosen again."""
    choice = again.RetryChoice(tuple(options.type), tuple(options.name), options.missing_files)
    return _perform(options, planning.Selection(), choice)


def _perform(options: argparse.Namespace, selection: planning.Selection, retry: again.RetryChoice | None) -> int:
    run_options = RunOptions(
        selection=selection,
        output=options.output,
        key_file=options.key_file,
        sandbox=options.sandbox,
        validate=not options.no_validate,
        canary=getattr(options, "canary", None),
        retry=retry,
        resubmit_unknown=options.resubmit_unknown,
        ask_above=options.ask_above,
        max_cost=options.max_cost,
        reconcile_s=options.reconcile_s,
        webhook_listen=options.webhook_listen,
        webhook_url=options.webhook_url,
        watch_signals=True,
        profile=options.profile,
    )
    with _Display(is_json=options.json) as display:
        report = anyio.run(
            lambda: running.arun(
                options.manifest,
                run_options,
                listen=display.hear,
                confirm=None if options.yes else display.confirm,
                on_plan=display.begin,
            )
        )
    _show_report(report, is_json=options.json)
    return int(report.exit_code)


def _show_report(report: Report, *, is_json: bool) -> None:
    if is_json:
        print_json(report.as_json())
    else:
        print_lines(render.report_lines(report))
    if report.canary is not None:
        if is_json:
            print_json(report.canary.as_json())
        else:
            print_lines(render.canary_lines(report.canary))
    if report.profile is not None:
        if is_json:
            print_json(report.profile.as_json())
        else:
            print_lines(render.profile_lines(report.profile))


class _Display:
    """The progress of one run, from the moment its plan is known."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        self._stack = ExitStack()
        self._show: Callable[[RunEvent], None] | None = None
        self._has_said = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def begin(self, plan: Plan, counter: Counter) -> None:
        """Say what will be done, then follow it."""
        if self._is_json:
            print_json(plan.as_json())
        self._say(plan)
        self._show = self._stack.enter_context(ProgressDisplay(counter))

    def _say(self, plan: Plan) -> None:
        """What will be done and what it will cost, once."""
        if self._has_said:
            return
        self._has_said = True
        print(render.doing(plan), file=sys.stderr)
        for line in render.forewords(plan):
            print(line, file=sys.stderr)

    def confirm(self, plan: Plan) -> bool:
        """Ask before money is spent; without a terminal somebody must have said so beforehand."""
        count = plan.actions[Action.SUBMIT]
        cost = f" for {plan.price}" if plan.price else ""
        if not sys.stdin.isatty():
            what = f"{count:,} jobs would be submitted to fal and billed{cost}" if count else render.may_roll(plan)
            raise UsageError(
                f"{what}, and there is no terminal to ask at",
                advice="Give --yes (or --ask-above USD), or look first with `falbatch plan`.",
            )
        self._say(plan)
        which = "jobs" if plan.canary is None else f"of {count + plan.canary.later:,} jobs"
        what = f"Submit {count:,} {which} to fal{cost}" if count else "Go on"
        print(f"{what}? They will be billed. [y/N] ", end="", file=sys.stderr, flush=True)
        # Nothing runs yet: a Ctrl-C here means no, at once, and not what the event loop makes of it.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return sys.stdin.readline().strip().lower() in {"y", "yes"}
        finally:
            signal.signal(signal.SIGINT, before)

    def hear(self, event: RunEvent) -> None:
        """Pass an event on to the bar."""
        if self._show is not None:
            self._show(event)
        elif text := words_of(event):
            print(text, file=sys.stderr)


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

    async def cancel() -> cancelling.CancelReport:
        return await cancelling.cancel(
            options.manifest, output=options.output, key_file=options.key_file, names=tuple(options.name)
        )

    report = anyio.run(cancel)
    if options.json:
        print_json(
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
        print_lines(_cancel_lines(report))
    return int(ExitCode.INCOMPLETE if report.refused else ExitCode.OK)


def _cancel_lines(report: cancelling.CancelReport) -> Iterator[str]:
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


HANDLERS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "run": do_run,
    "retry": do_retry,
    "reconcile": do_reconcile,
    "cancel": do_cancel,
}
