"""Values as text for people. Pure: strings out, nothing printed."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from falbatch.cli.costs import cost_lines
from falbatch.core.money import in_dollars
from falbatch.core.plan import Action, Change
from falbatch.core.state import State
from falbatch.core.trialwords import facts_of, next_words
from falbatch.core.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from falbatch.core.plan import Plan, PlannedJob
    from falbatch.core.report import BatchStatus, FailureGroup, Report, RunTally
    from falbatch.core.stages import StageTable
    from falbatch.core.trial import CanaryReport

UNKNOWN_SHOWN = 10
FLAGGED_SHOWN = 10

SAME_COMMAND = "the same command tries again"
"""What to do about jobs that a run could not bring to their end."""


def in_bytes(count: int) -> str:
    """A number of bytes, as file managers show it."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def plan_lines(plan: Plan) -> Iterator[str]:
    """A plan: counts, reasons, what changed, the first jobs in full."""
    yield f"{plan.name}: {plan.total:,} jobs → {plan.output_dir}"
    for action in Action:
        if count := plan.actions[action]:
            yield f"  {action.value:<9} {count:>9,}"
    if files := plan.files:
        there = f", {files.there:,} are at fal already" if files.there else ""
        yield f"files of inputs: {files.upload:,} to upload ({in_bytes(files.upload_bytes)}){there}"
    if plan.cost is not None:
        yield from cost_lines(plan.cost, time.time())
    yield from _limit_lines(plan)
    yield "reasons:"
    for reason, count in sorted(plan.reasons.items(), key=lambda pair: -pair[1]):
        yield f"  {count:>9,}  {reason}"
    yield (
        f"against the state: {plan.changes[Change.ADDED]:,} added, {plan.changes[Change.CHANGED]:,} changed,"
        f" {plan.changes[Change.UNCHANGED]:,} unchanged, {plan.orphans:,} orphaned"
    )
    for job in plan.changed:
        yield f"  changed   {job.name}"
    for orphan in plan.orphaned:
        yield f"  orphaned  {orphan.name} ({orphan.state}): {orphan.decision.reason}"
    yield f"first {len(plan.first)} of {plan.total:,}:"
    for job in plan.first:
        yield from _job_lines(job)
    yield from warning_lines(plan)


def forewords(plan: Plan) -> Iterator[str]:
    """What a run says before it begins: costs and warnings."""
    if plan.cost is not None and (part := plan.canary_cost) is not None:
        price = "not known" if part.most is None else part.words
        yield f"cost of the canary, {counted(plan.actions[Action.SUBMIT], 'job')}: {price}"
        yield from cost_lines(plan.cost, time.time(), what="all that is left, the canary included")
    elif plan.cost is not None:
        yield from cost_lines(plan.cost, time.time())
    yield from _limit_lines(plan)
    yield from warning_lines(plan)
    if plan.resubmitted:
        yield resubmit_warning(plan)
    if plan.rerolls:
        yield f"warning: {may_roll(plan)}: what was submitted before comes home, and `output.flagged` is `reroll`."


def _limit_lines(plan: Plan) -> Iterator[str]:
    if plan.max_cost is not None and plan.affords is not None:
        of = f"{plan.affords:,} of {plan.actions[Action.SUBMIT]:,} jobs"
        yield f"  the limit of {in_dollars(plan.max_cost)} will stop it after about {of}"


def warning_lines(plan: Plan) -> Iterator[str]:
    """What is worth knowing before anything is submitted, and stops nothing."""
    for warning in plan.warnings:
        yield f"warning: {warning}"


def _job_lines(job: PlannedJob) -> Iterator[str]:
    replica = f", replica {job.replica}" if job.replica else ""
    yield f"  {job.name}"
    yield f"    {job.decision.action.value}: {job.decision.reason} · {job.change.value}{replica}"
    yield f"    {job.endpoint}  {json.dumps(json.loads(job.input_json), ensure_ascii=False)}"
    yield f"    from {job.origin} · key {job.key.hex()[:16]}"


def doing(plan: Plan) -> str:
    """What a run is about to do, in one line."""
    about = plan.canary
    actions = {action: count for action, count in plan.actions.items() if count}
    if about is None:
        return f"{plan.name}: {counted(plan.total, 'job')}: {_actions(actions)}"
    actions.pop(Action.SKIP, None)
    if not about.jobs:
        return f"{plan.name}: nothing is left to try: {_actions(actions)}"
    words = f"{plan.name}: canary of {about.jobs:,} of {counted(plan.total, 'job')}"
    if about.begun:
        words += f", goes on ({about.begun:,} were submitted before)"
    return f"{words}: {_actions(actions) or 'nothing to submit'}; {about.later:,} are left for later"


def _actions(actions: Mapping[Action, int]) -> str:
    return ", ".join(f"{action.value} {count:,}" for action, count in actions.items())


def canary_lines(canary: CanaryReport) -> Iterator[str]:
    """What a canary found, where its pictures are, and what comes next."""
    if not canary.jobs:
        yield "canary: nothing is left to try, no job is still to be submitted"
        return
    yield f"canary of {counted(len(canary.jobs), 'job')}:"
    for term, text in facts_of(canary):
        yield f"  {term}: {text}"
    yield from _group_lines("failed in the canary", canary.failures)
    yield from _group_lines("unfinished in the canary", canary.stuck, SAME_COMMAND)
    if canary.page:
        yield f"look at it: {canary.page}"
    if canary.next:
        yield f"next: `{canary.next}` {next_words(canary)}"


def may_roll(plan: Plan) -> str:
    """What a run may submit beside its plan."""
    return f"up to {plan.rerolls:,} flagged results may be run again at fal and billed"


def resubmit_warning(plan: Plan) -> str:
    """What submitting unknown jobs again may cost."""
    cost = f" (up to {in_dollars(plan.at_risk)} more)" if plan.at_risk else ""
    return (
        f"warning: {plan.resubmitted:,} of them are unknown jobs, submitted before without an answer, whose results"
        " fal's request list does not give. fal may have run them all the same: each may be charged a second time"
        f"{cost}."
    )


def _money_lines(status: BatchStatus) -> Iterator[str]:
    money = status.money
    if money.spent or money.reserved:
        projected = (
            "" if status.projected is None else f", projected for the whole batch {in_dollars(status.projected)}"
        )
        yield f"cost: {in_dollars(money.spent)} spent, {in_dollars(money.reserved)} reserved{projected}"
    if money.unpriced and (money.spent or money.reserved):
        yield f"  {money.unpriced:>9,}  requests whose cost is not known"


def status_lines(status: BatchStatus) -> Iterator[str]:
    """A batch: its states, its failures by reason, its unknown jobs."""
    if not status.name:
        yield "nothing was planned or submitted yet: every run so far was refused before it began"
        return
    yield f"{status.name}: {status.count(State.DONE):,} of {status.total:,} jobs done, {status.files:,} files"
    for state in State:
        if count := status.counts.get(state):
            yield f"  {state.value:<10} {count:>9,}"
    if status.orphaned:
        yield f"  {'orphaned':<10} {status.orphaned:>9,}  (no longer in the manifest)"
    if status.mode.is_direct:
        yield f"mode: {status.mode.value}"
    yield f"requests accepted by fal: {status.executions:,}; billable units reported: {status.billable_units:g}"
    yield from _money_lines(status)
    yield from _trouble_lines(status)


def report_lines(report: Report) -> Iterator[str]:
    """The end of a run."""
    status, tally = report.status, report.tally
    canary = report.canary if report.canary and report.canary.jobs else None
    if report.unchanged and tally.stopped_by:
        yield f"{tally.stopped_by}: nothing was submitted"
    elif report.unchanged and canary is not None:
        more = "; a larger one tries more" if canary.left else ""
        yield f"{status.name}: this canary was tried before, nothing was submitted{more}"
    elif report.unchanged and (ended := status.count(State.FAILED, State.CANCELLED)):
        done = f"{status.count(State.DONE):,} of {status.total:,} jobs are done"
        yield f"{status.name}: nothing to submit, {done}; `falbatch retry` does the {counted(ended, 'other')} again"
    elif report.unchanged:
        yield f"{status.name}: nothing to do, {status.count(State.DONE):,} of {status.total:,} jobs are done"
    else:
        yield (
            f"{status.name}: {counted(tally.finished, 'job')} finished in {tally.seconds:.1f} s"
            f" ({tally.submitted:,} submitted, {counted(tally.further_attempts, 'further attempt')},"
            f" {counted(tally.refusals, 'refusal')}, {counted(tally.status_calls, 'status call')})"
        )
        others = ", ".join(
            f"{status.counts[state]:,} {state}"
            for state in State
            if state is not State.DONE and status.counts.get(state)
        )
        yield f"  {status.count(State.DONE):,} of {status.total:,} done{', ' + others if others else ''}"
        yield from _money_lines(status)
        yield from _tally_lines(tally)
    yield from _unknown_lines(status) if canary else _trouble_lines(status)
    if tally.reconcile_trouble and status.unknown:
        yield f"  fal's request list could not be read: {tally.reconcile_trouble}"
    if tally.stopped_by and not report.unchanged:
        yield f"stopped: {tally.stopped_by}"
        if at_fal := status.count(State.SUBMITTED):
            go = "goes" if at_fal == 1 else "go"
            yield f"  {counted(at_fal, 'request')} {go} on at fal; the same command collects the results"
    if report.advice:
        yield f"  try: {report.advice}"
    yield f"files: {report.output_dir}"


def profile_lines(profile: StageTable) -> Iterator[str]:
    """Where a run's time went."""
    yield (
        f"profile: {profile.wall_s:.1f} s, of which falbatch's own processor time {profile.cpu_s:.1f} s"
        f" ({profile.cpu_s / profile.wall_s if profile.wall_s else 0:.0%} of one core)"
    )
    yield f"  {'stage':<10}{'count':>9}{'p50':>10}{'p95':>10}{'CPU':>7}"
    for row in profile.rows:
        share = "–" if row.cpu_share is None else f"{row.cpu_share:.1%}"
        count = f"{row.count:,}" if row.count else "–"
        yield f"  {row.stage:<10}{count:>9}{_span(row.p50_s):>10}{_span(row.p95_s):>10}{share:>7}  {row.meaning}"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _tally_lines(tally: RunTally) -> Iterator[str]:
    if tally.rerolls:
        yield f"  {tally.rerolls:,} flagged results run again (re-rolled)"
    if tally.uploads:
        yield f"  {tally.uploads:,} files of inputs uploaded ({in_bytes(tally.uploaded_bytes)})"
    if tally.callbacks or tally.callbacks_refused:
        yield (
            f"  {tally.callbacks:,} webhooks came, {tally.callbacks_repeated:,} more were repeats,"
            f" {tally.callbacks_refused:,} calls were refused"
        )
    if tally.found_by_callback:
        yield f"  {tally.found_by_callback:,} submits without an answer were named by webhooks, and adopted"
    if tally.found:
        yield f"  {tally.found:,} submits without an answer were found in fal's request list, and adopted"


def _trouble_lines(status: BatchStatus) -> Iterator[str]:
    yield from _group_lines("failed", status.failures)
    yield from _group_lines("unfinished", status.stuck, SAME_COMMAND)
    yield from _flagged_lines(status)
    yield from _unknown_lines(status)


def _unknown_lines(status: BatchStatus) -> Iterator[str]:
    if not status.unknown:
        return
    yield f"unknown: {status.count(State.UNKNOWN):,} (their submits got no answer: they may have run and been charged)"
    for job in status.unknown[:UNKNOWN_SHOWN]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.submitted_at))
        yield f"  {job.name}  {when}  {job.input_json[:100]}"
    yield "  try: `falbatch reconcile …` looks for them at fal again, at no charge; `falbatch run … --resubmit-unknown`"
    yield "       submits them again, and each may then be charged twice"


def _flagged_lines(status: BatchStatus) -> Iterator[str]:
    if status.flagged:
        yield f"flagged: {sum(group.count for group in status.flagged):,} jobs are done, and their results are marked"
    for group in status.flagged:
        names = ", ".join(group.jobs[:FLAGGED_SHOWN])
        more = ", …" if group.count > FLAGGED_SHOWN else ""
        yield f"  {group.count:>9,}  {', '.join(group.flags)}: {names}{more}"


def _group_lines(title: str, groups: tuple[FailureGroup, ...], advice: str = "") -> Iterator[str]:
    """Jobs by reason; `advice`: what to do about all of them, where it is not that of their reason."""
    if groups:
        yield f"{title}:"
    for group in groups:
        yield f"  {group.count:>9,}  {group.error_type}: {group.example[:200]}"
        yield f"             e.g. {group.job}; try: {advice or group.advice}"
