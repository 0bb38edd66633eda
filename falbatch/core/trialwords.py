"""A canary's figures as text, for the terminal and for its page. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from falbatch.core.money import in_dollars, in_range, in_round
from falbatch.core.state import State
from falbatch.core.words import counted, in_time

if TYPE_CHECKING:
    from falbatch.core.projection import Times
    from falbatch.core.trial import CanaryReport, EndpointCost, TriedJob

SHORT_S: Final = 60.0
"""Times below this have a decimal."""

NAMES_MOST: Final = 10
"""Names of jobs in one line."""

NO_COST: Final = "not known: fal named no billable units, or no price is known (`budget.unit_price` gives one)"


def facts_of(report: CanaryReport) -> list[tuple[str, str]]:
    """What a canary says, line by line: a term and its text."""
    found = [("success", _success(report))]
    if report.flagged:
        found.append(("flagged", _flagged(report)))
    found += [(f"cost of a job{_of(cost)}", _cost(cost)) for cost in report.costs]
    if report.time is not None:
        found.append(("time of a job", f"{_times(report.time)}, from submit to end"))
    if report.inference is not None:
        found.append(("at work", f"{_times(report.inference)}, as fal tells"))
    found.append(("cost of the whole", _whole_cost(report)))
    if report.left:
        found.append(("time of the whole", _whole_time(report)))
    return found


def _success(report: CanaryReport) -> str:
    rate = f" ({report.done / report.ended:.0%})" if report.ended else ""
    if marked := sum(group.count for group in report.flagged):
        rate += f", {marked:,} of them flagged"
    others = ", ".join(
        f"{count:,} {state}" for state in State if state is not State.DONE and (count := report.counts.get(state))
    )
    return f"{report.done:,} of {counted(len(report.jobs), 'job')} done{rate}{', ' + others if others else ''}"


def _flagged(report: CanaryReport) -> str:
    return "; ".join(
        f"{group.count:,} {', '.join(group.flags)} ({', '.join(group.jobs[:NAMES_MOST])}"
        f"{', …' if group.count > NAMES_MOST else ''})"
        for group in report.flagged
    )


def _of(cost: EndpointCost) -> str:
    return f", {cost.endpoint}" if cost.endpoint else ", all"


def _cost(cost: EndpointCost) -> str:
    if cost.median is None or cost.least is None or cost.most is None:
        return NO_COST
    jobs = counted(cost.jobs, "job")
    if cost.least == cost.most:
        told = f"{in_dollars(cost.least)} ({jobs}{', all alike' if cost.jobs > 1 else ''})"
    elif spread := in_range(cost.least, cost.most):
        told = f"median {in_round(cost.median)}, {spread} ({jobs})"
    else:
        told = f"about {in_round(cost.median)} ({jobs})"
    return told + (f"; not known of {cost.unknown:,}" if cost.unknown else "")


def _times(times: Times) -> str:
    many = counted(times.jobs, "job")
    return f"median {short_time(times.median)}, nine in ten within {short_time(times.p90)} ({many})"


def short_time(seconds: float) -> str:
    """A time that may be short: `2.1 s`."""
    return f"{seconds:.1f} s" if seconds < SHORT_S else in_time(seconds)


def _whole_cost(report: CanaryReport) -> str:
    cost = report.cost
    if cost.total is None:
        return f"cannot be said: {cost.why}"
    if not report.left:
        return f"{in_dollars(cost.total)}: nothing is left to be submitted"
    spread = f" ({cost.why})" if cost.why else ""
    if cost.low is not None and cost.high is not None and (limits := in_range(cost.low, cost.high)):
        spread = f", in 19 of 20 cases {limits}"
    left = f", {counted(report.left, 'job')} left at {in_round(cost.left_mean)}" if cost.left_mean is not None else ""
    return f"about {in_round(cost.total)}{spread}: {in_dollars(cost.spent)} spent{left}; if the rest is like these"


def next_words(report: CanaryReport) -> str:
    """What the next command does, to follow it."""
    limit = "" if report.limit is None else f", as far as the limit of {in_dollars(report.limit)} allows"
    return f"does the {counted(report.left, 'job')} left{limit}"


def _whole_time(report: CanaryReport) -> str:
    duration = report.duration
    if duration.seconds is None:
        return f"cannot be said: {duration.assumption}"
    about = "at most about" if duration.is_bound else "about"
    return f"{about} {in_time(duration.seconds)} for {counted(report.left, 'more job')}, {duration.assumption}"


def job_facts(job: TriedJob) -> list[str]:
    """One job's cost and time, as far as they are known."""
    found = []
    if job.is_billed:
        found.append("cost not known" if job.cost is None else in_dollars(job.cost))
    if job.span is not None and not job.is_torn:
        work = f" ({short_time(job.span.work_s)} at work)" if job.span.work_s is not None else ""
        found.append(f"{short_time(job.span.seconds)}{work}")
    return found
