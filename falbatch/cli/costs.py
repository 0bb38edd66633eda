"""Costs as text for people. Pure: strings out, nothing printed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from falbatch.core.money import in_dollars, in_range, in_round
from falbatch.core.pricing import Certainty

if TYPE_CHECKING:
    from collections.abc import Iterator

    from falbatch.core.pricing import Cost, EndpointCost

OLD_S: Final = 24 * 3600.0
"""A price that was heard longer ago is shown with its day."""


def day_of(at: float | None) -> str:
    """When fal said it."""
    return "your price" if at is None else time.strftime("%Y-%m-%d", time.localtime(at))


def cost_words(line: EndpointCost) -> str:
    """What some jobs cost, with what is not sure about it: `about $3.20 ($2.90 to $3.50)`."""
    if line.total is None:
        return "not known"
    if line.certainty is Certainty.EXACT:
        return in_dollars(line.total)
    spread = "" if line.low is None or line.high is None else in_range(line.low, line.high)
    return f"about {in_round(line.total)}{f' ({spread})' if spread else ''}"


def cost_lines(cost: Cost, now: float, *, what: str = "what is to be submitted") -> Iterator[str]:
    """What a batch will cost, by endpoint and as a whole; `now` is the Unix time, `what` the jobs that `cost` counts.
    Nothing where no money is in play."""
    if not cost.endpoints and not cost.spent and not cost.reserved:
        return
    yield f"cost of {what}:" if cost.endpoints else "cost:"
    wide = max((len(line.endpoint) for line in cost.endpoints), default=0)
    for line in cost.endpoints:
        jobs = f"{line.jobs:>9,} {'job ' if line.jobs == 1 else 'jobs'}"
        yield f"  {line.endpoint:<{wide}}  {jobs}  {cost_words(line)}{how(line, now)}"
        if line.words:
            yield f"  {'':<{wide}}  {line.words}"
    if cost.trouble:
        yield f"  prices: {cost.trouble}"
    reserved = f", {in_dollars(cost.reserved)} reserved for jobs at fal or without an answer" if cost.reserved else ""
    whole = f"; the whole batch: {cost.worded(cost.whole)}" if cost.whole is not None else ""
    yield f"  spent already: {in_dollars(cost.spent)}{reserved}; left: {cost.words}{whole}"


def how(line: EndpointCost, now: float) -> str:
    """What it is reckoned from, to follow `cost_words`: ` = 400 × $0.025 per megapixel`; an old price with its day."""
    if line.unit_price is None:
        return ""
    is_old = line.priced_at is not None and not 0 <= now - line.priced_at <= OLD_S
    whose = "" if line.priced_at is not None else ", your price"
    day = f", a price of {day_of(line.priced_at)}" if is_old else whose
    units = ";" if line.units is None else f" = {line.units:,.10g} ×"
    return f"{units} {in_dollars(line.unit_price)} per {line.unit or 'unit'}{day}"
