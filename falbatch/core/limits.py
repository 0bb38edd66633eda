"""The manifest's settings for how a batch runs: output, limits, uploads, retry, budget. Each bound with its reason."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from falbatch.core.flags import FlagPolicy, LackPolicy
from falbatch.core.schema import Expected, Section, whole

_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%")

_FOLDER: Final = r"^(?![\s\S]*\{[{%])[\s\S]*\S"
"""`_check_dir` as a pattern, for editors."""

# fal serves all callers of an account together; a rate beyond this would be a mistake, not a wish.
_Rate = Annotated[float, Field(gt=0, le=100_000), Expected("a number above 0, at most 100000 (per second)")]


def _flag_policy(value: Any) -> Any:
    return FlagPolicy(value) if value in list(FlagPolicy) else value


def _lack_policy(value: Any) -> Any:
    return LackPolicy(value) if value in list(LackPolicy) else value


class OutputSpec(Section):
    """Where results go."""

    dir: Annotated[str, Field(json_schema_extra={"pattern": _FOLDER}), Expected("a folder, as text")] = ""
    """Output folder, relative to the manifest's; "" until the default `outputs/<name>` is filled in."""
    name: Annotated[str | None, Expected("text, usually with templates")] = None
    """Template of each item's file name, without extension; None names files by label and key."""
    sidecar: Annotated[bool, Expected("true or false")] = False
    """Whether a JSON file with input and result lies beside each item's files."""
    flagged: Annotated[FlagPolicy, BeforeValidator(_flag_policy), Expected("keep, mark, fail or reroll")] = (
        FlagPolicy.MARK
    )
    """What follows when a result is flagged (nsfw), or a picture of it is all black."""
    lacking: Annotated[LackPolicy, BeforeValidator(_lack_policy), Expected("fail or keep")] = LackPolicy.FAIL
    """What follows when a result holds fewer files than asked for, an error, or nothing."""

    @field_validator("dir")
    @classmethod
    def _check_dir(cls, value: str) -> str:
        if not value.strip() or "\0" in value:
            raise ValueError("a folder is needed")
        if "{{" in value or "{%" in value:
            raise ValueError("all items share one folder; put templates into output.name, which may make folders")
        return value


def _auto(value: Any) -> Any:
    return None if value == "auto" else value


# A request in flight costs a task and a place in the poll schedule; fal's own caps are far lower.
_InFlight = Annotated[int, Field(ge=1, le=10_000)]


class LimitsSpec(Section):
    """How fast, and how much at once."""

    in_flight: Annotated[
        _InFlight | None,
        BeforeValidator(_auto, json_schema_input_type=Literal["auto"] | _InFlight | None),
        Expected("auto, or a whole number from 1 to 10000"),
    ] = None
    """Jobs at fal at the same time; None ("auto") learns what fal takes."""
    submits_per_s: _Rate = 200
    """Jobs handed to fal per second, at most."""
    polls_per_s: _Rate = 200
    """Questions "is it done?" per second, over all jobs, at most."""
    connections: Annotated[
        # Each may hold a runner at fal: more than fal's largest self-service cap (40) are never served together.
        int | None, Field(ge=1, le=64), Expected("a whole number from 1 to 64")
    ] = None
    """Realtime connections at the same time, one job each; None: 4. For `mode: realtime` only."""
    downloads: Annotated[
        # Each holds a connection, a file handle and a buffer; the usual limit is 1024 handles.
        int, Field(ge=1, le=1000), Expected("a whole number from 1 to 1000")
    ] = 16
    """Files downloaded at the same time."""
    uploads: Annotated[
        # As for downloads; and one of them may be read from disk in parts.
        int, Field(ge=1, le=100), Expected("a whole number from 1 to 100")
    ] = 8
    """Files of inputs uploaded at the same time."""


class UploadsSpec(Section):
    """How files of inputs are kept at fal."""

    expires_in: Annotated[
        # A job may wait in the queue for minutes: shorter lives than an hour are a trap.
        Literal["never", "1h", "1d", "7d", "30d", "1y"] | Annotated[int, Field(ge=3600, le=366 * 86400)] | None,
        Expected("never, 1h, 1d, 7d, 30d, 1y, or a whole number of seconds from 3600"),
    ] = None
    """How long fal keeps them; None leaves it to the account's setting."""


class RetrySpec(Section):
    """When and how often a refused or failed call is made again."""

    attempts: Annotated[
        # With cap_s between them, more would hide a lasting trouble for hours.
        int, Field(ge=1, le=20), Expected("a whole number from 1 to 20")
    ] = 4
    """Requests that may be run for one job, the first included."""
    first_s: Annotated[float, Field(gt=0, le=3600), Expected("a number of seconds above 0, at most 3600")] = 1.0
    """Longest wait in seconds before the second try; it doubles from try to try."""
    cap_s: Annotated[
        # Beyond an hour, stopping and running again later serves better than waiting.
        float, Field(gt=0, le=3600), Expected("a number of seconds above 0, at most 3600")
    ] = 60.0
    """Longest wait in seconds before any try."""
    budget: Annotated[float, Field(ge=0, le=1), Expected("a number from 0 to 1 (a share of the submitted jobs)")] = 0.2
    """Further attempts of a run: ten, and this share of the jobs that it submits. 0: none at all."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.cap_s < self.first_s:
            raise ValueError("retry.cap_s must not be below retry.first_s")
        return self


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """How many failed jobs end a run; exactly one of the two is set."""

    count: int | None
    """Failed jobs that are still accepted."""
    share: float | None
    """Failed jobs that are still accepted, as a share (0 to 1) of all jobs of the manifest."""


def _failure_limit(value: Any) -> FailureLimit | None:
    if value is None or isinstance(value, FailureLimit):
        return value
    if type(value) is int and value >= 0:
        return FailureLimit(count=value, share=None)
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if found and float(found[1]) <= 100:
        return FailureLimit(count=None, share=float(found[1]) / 100)
    raise AssertionError  # pydantic words it; Checker says what is expected instead


def _unit_price(value: Any) -> Decimal | dict[str, Decimal] | None:
    if isinstance(value, dict):
        if not value:
            raise AssertionError
        return {str(endpoint): _dollars(price) for endpoint, price in value.items()}
    return None if value is None else _dollars(value)


def _limit(value: Any) -> Decimal | None:
    return None if value is None else _dollars(value)


def _dollars(value: Any) -> Decimal:
    """Exactly as written: through the number's own text, not its binary form."""
    if isinstance(value, Decimal):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= DOLLARS_MOST:
        raise AssertionError  # pydantic words it; Checker says what is expected instead
    return Decimal(str(value))


DOLLARS_MOST: Final = 1_000_000_000
"""Above that an amount is a slip of the keyboard, and NaN is none."""


class BudgetSpec(Section):
    """What ends a run early."""

    max_cost: Annotated[Decimal | None, BeforeValidator(_limit), Expected("US dollars")] = None
    """What the batch may cost over all its runs, in US dollars; None: no limit."""
    unit_price: Annotated[
        Decimal | dict[str, Decimal] | None,
        BeforeValidator(
            _unit_price, json_schema_input_type=Decimal | Annotated[dict[str, Decimal], Field(min_length=1)] | None
        ),
        Expected("US dollars per billable unit, or endpoints with theirs"),
    ] = None
    """US dollars per billable unit, of all endpoints or by endpoint; None asks fal."""
    ask_above: Annotated[Decimal | None, BeforeValidator(_limit), Expected("US dollars")] = None
    """A run that is expected to cost no more than this, in US dollars, does not ask for a yes; None: all ask that cost
    anything."""
    max_failures: Annotated[
        FailureLimit | None,
        BeforeValidator(
            _failure_limit,
            json_schema_input_type=Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=whole(_PERCENT))] | None,
        ),
        Expected('a whole number of jobs, or a share such as "5%"'),
    ] = None
    """Failures after which nothing more is submitted; None goes on to the end."""
    max_equal_failures: Annotated[
        # An input that every job shares is wrong: the twentieth 422 in a row teaches nothing and may be billed.
        int | None,
        Field(ge=1, le=1_000_000),
        Expected("a whole number from 1, or null for no limit"),
    ] = 20
    """Equal failures in a row on one endpoint after which nothing more is submitted; None goes on to the end."""

    def price_of(self, endpoint: str) -> Decimal | None:
        """The user's own price of a unit, None where there is none."""
        return self.unit_price.get(endpoint) if isinstance(self.unit_price, dict) else self.unit_price
