"""Which of fal's listed requests is which of our submits that got no answer. Pure.

fal has no idempotency key, so a lost submit is known again by what it was: its endpoint, its input and its time
(fal-protocol §11.5). Inputs may be alike (replicas): then as many submits are matched as requests are listed, no more.
"""

from __future__ import annotations

import hashlib
from bisect import insort
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from falbatch.core.model import Mode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

SKEW_S: Final = 600.0
"""How far this machine's clock and fal's may differ. Endpoint and input must agree to the byte, so being generous here
risks little; being narrow would leave paid work unfound."""

FIRST_LOOK_S: Final = 2.0
"""Pause before the first look after a submit got no answer: most of what was accepted is not done sooner."""

PAUSE_GROWTH: Final = 1.7
PAUSE_MOST_S: Final = 60.0

PATIENCE_LEAST_S: Final = 20.0
PATIENCE_MOST_S: Final = 600.0
PATIENCE_UNKNOWN_S: Final = 60.0
"""Where nothing is known of how long the endpoint takes."""
PATIENCE_DURATIONS: Final = 4.0
"""Durations of a usual job after which it would be listed: a request still running is not, and the list may lag."""

SLOW_DURATIONS: Final = 1.5
"""The same for jobs so slow that the most patience would end before them."""


@dataclass(frozen=True, slots=True)
class LostSubmit:
    """One submit without an answer."""

    job_id: int
    attempt: int
    endpoint: str
    input_json: bytes
    """Canonical JSON, as stored."""
    left_at: float
    """Unix seconds by this machine's clock at which the intent was stored."""
    given_up_at: float
    """Unix seconds after which it cannot have been accepted any more."""
    is_open: bool
    """True while its job could go on with its request: it is unknown, or waits to be submitted again. False when
    another submit left since, and only the cost is in question."""
    reserved: int = 0
    """Nano-dollars that were reserved for it."""
    named_id: str = ""
    """A request id that the error itself named, "" for none."""
    is_unknown: bool = True
    """False when its job is to be submitted again, by the user's word, or was."""
    mode: Mode = Mode.QUEUE
    sent_sha256: bytes | None = None
    """SHA-256 of the canonical JSON that left, where that was not `input_json` (an input with files)."""

    @property
    def sha256(self) -> bytes:
        """By which it is known again."""
        return self.sent_sha256 or hashlib.sha256(self.input_json).digest()


@dataclass(frozen=True, slots=True)
class Listed:
    """One request of fal's list."""

    request_id: str
    input_json: bytes | None
    """Canonical JSON; None where fal keeps no payloads: it cannot be matched then."""
    sent_at: float | None
    """Unix seconds by fal's clock."""
    output: bytes | None = None
    """What it answered, as JSON; None where fal keeps no payloads, or it failed."""

    @property
    def sha256(self) -> bytes | None:
        """By which it is known again; None without its input."""
        return None if self.input_json is None else hashlib.sha256(self.input_json).digest()


def match(lost: Iterable[LostSubmit], listed: Iterable[Listed], known: Collection[str]) -> dict[LostSubmit, Listed]:
    """Which listed request answers which lost submit. All of `lost` and `listed` belong to one endpoint.

    Requests in `known` are other attempts'. Each request answers one submit at most; submits whose jobs still wait for
    an answer come first, then those that were submitted again since. As many submits are answered as can be.
    """
    requests: defaultdict[bytes, dict[str, Listed]] = defaultdict(dict)
    for request in listed:
        sha256 = request.sha256
        if sha256 is not None and request.request_id not in known:
            requests[sha256][request.request_id] = request
    waiting: defaultdict[bytes, list[LostSubmit]] = defaultdict(list)
    for submit in lost:
        waiting[submit.sha256].append(submit)
    matched: dict[LostSubmit, Listed] = {}
    for sha256, submits in waiting.items():
        left = requests.get(sha256, {})
        for is_open in (True, False):
            found = _earliest_deadline([one for one in submits if one.is_open is is_open], left.values())
            for request in found.values():
                del left[request.request_id]
            matched |= found
    return matched


def _earliest_deadline(submits: list[LostSubmit], requests: Collection[Listed]) -> dict[LostSubmit, Listed]:
    """Each request in order of time answers the submit whose window closes first: no other choice answers more."""
    by_start = sorted(submits, key=lambda one: (one.left_at, one.given_up_at, one.job_id, one.attempt))
    open_now: list[tuple[float, int]] = []
    found: dict[LostSubmit, Listed] = {}
    begun = 0
    timed = ((request.sent_at, request) for request in requests if request.sent_at is not None)
    for sent_at, request in sorted(timed, key=lambda pair: (pair[0], pair[1].request_id)):
        while begun < len(by_start) and by_start[begun].left_at - SKEW_S <= sent_at:
            insort(open_now, (by_start[begun].given_up_at + SKEW_S, begun))
            begun += 1
        while open_now and open_now[0][0] < sent_at:
            open_now.pop(0)
        if open_now:
            found[by_start[open_now.pop(0)[1]]] = request
    return found


def patience_s(usual_s: float | None) -> float:
    """Seconds after a lost submit for which looking for it makes sense; `usual_s` is how long such jobs take."""
    if usual_s is None:
        return PATIENCE_UNKNOWN_S
    return max(PATIENCE_LEAST_S, min(PATIENCE_MOST_S, PATIENCE_DURATIONS * usual_s), SLOW_DURATIONS * usual_s)


def next_look_s(pause_s: float, left_s: float) -> tuple[float, float]:
    """(seconds until the next look, the pause to hand in then), with `left_s` seconds of patience left.

    The last look falls on the end of the patience, so that nothing is given up unseen.
    """
    wait_s = min(pause_s, max(0.0, left_s))
    return wait_s, min(PAUSE_MOST_S, pause_s * PAUSE_GROWTH)
