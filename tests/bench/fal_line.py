"""The requests of the benchmarks' fal: when each starts and ends is decided when it comes, so nothing ever ticks.

fal serves in order, at most `cap` at a time; since the service time of a request is drawn when it is submitted, its
start and its end follow from those before it. Times are seconds of the monotonic clock, which all processes of a
machine share.
"""

from __future__ import annotations

import heapq
import math
import statistics
from bisect import bisect_right
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any, Final

FILE_BYTES: Final = 20_480


@dataclass(frozen=True, slots=True)
class Settings:
    """What `POST /bench/settings` sets."""

    service_s: float = 0.0
    """Median seconds that a request runs."""
    sigma: float = 0.0
    """0: each runs exactly `service_s`; else the sigma of a log-normal distribution."""
    seed: int = 1
    file_bytes: int = FILE_BYTES
    cap: int | None = None
    """Requests that run at the same time; None: all."""


@dataclass(slots=True)
class Request:
    """One accepted request."""

    id: str
    app: str
    """Owner and alias: what its URLs are made of (fal-protocol §2)."""
    body: bytes = field(repr=False)
    starts: float
    ends: float
    position: int
    """Its number among all since the last reset, from 0."""
    noticed: float = 0.0
    """When an answer first said that it is over; 0 until then."""
    status_calls: int = 0


@dataclass(slots=True)
class Counts:
    """What was asked since the last reset."""

    submits: int = 0
    status_calls: int = 0
    streams: int = 0
    results: int = 0
    early_results: int = 0
    result_bytes: int = 0
    files: int = 0
    file_bytes: int = 0
    platform_calls: int = 0
    unknown: int = 0
    """Calls that this fal does not know."""
    first_call: float = 0.0
    """When the queue was first asked for anything, be it a submit, a status or a result; 0 until then."""
    first_file: float = 0.0
    """When a file was asked for first; 0 until then."""


class Line:
    """All requests since the last reset, and their counts."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.counts = Counts()
        self._epoch = 0
        self.reset()

    def set(self, given: dict[str, Any]) -> None:
        """Other settings; what is not named keeps its default. Forgets everything else."""
        self.settings = Settings(**given)
        self.reset()

    def reset(self) -> None:
        """Forget requests and counts; ids never come again."""
        self.counts = Counts()
        self._epoch += 1
        self._random = Random(self.settings.seed)
        self._requests: list[Request] = []
        self._starts: list[float] = []
        self._running: list[float] = []

    def submit(self, app: str, body: bytes, now: float) -> Request:
        """Take a request."""
        starts = now
        if self.settings.cap is not None and len(self._running) >= self.settings.cap:
            starts = max(now, heapq.heappop(self._running))
        number = len(self._requests)
        request = Request(self._id(number), app, body, starts, starts + self._service_s(), number)
        if self.settings.cap is not None:
            heapq.heappush(self._running, request.ends)
        self._requests.append(request)
        self._starts.append(starts)
        self.counts.submits += 1
        return request

    def find(self, request_id: str) -> Request | None:
        """The request with this id."""
        try:
            request = self._requests[int(request_id[:8], 16)]
        except (ValueError, IndexError):
            return None
        return request if request.id == request_id else None

    def ahead(self, request: Request, now: float) -> int:
        """How many wait in front of a waiting request: starts only grow along the line."""
        return max(0, request.position - bisect_right(self._starts, now))

    def stats(self, first: int, now: float) -> dict[str, Any]:
        """Counts, and medians over all requests and over the first `first` of them."""
        return {
            **asdict(self.counts),
            "executed": sum(one.ends <= now for one in self._requests),
            "all": _medians(self._requests),
            "first_wave": _medians(self._requests[:first]),
        }

    def _id(self, number: int) -> str:
        return f"{number:08x}-0000-4000-8000-{self._epoch:012x}"

    def _service_s(self) -> float:
        service_s, sigma = self.settings.service_s, self.settings.sigma
        return self._random.lognormvariate(math.log(service_s), sigma) if sigma and service_s else service_s


def _medians(requests: list[Request]) -> dict[str, float]:
    """Status calls of a request, and how late somebody noticed its end: in seconds and as a share of its own service
    time (0 where it had none)."""
    noticed = [one for one in requests if one.noticed]
    if not noticed:
        return {}
    calls = [one.status_calls for one in noticed]
    delays = [one.noticed - one.ends for one in noticed]
    shares = [
        delay / (one.ends - one.starts) if one.ends > one.starts else 0.0
        for delay, one in zip(delays, noticed, strict=True)
    ]
    return {
        "jobs": len(noticed),
        "status_calls": statistics.median(calls),
        "status_calls_mean": statistics.fmean(calls),
        "delay_s": statistics.median(delays),
        "delay_mean_s": statistics.fmean(delays),
        "delay_share": statistics.median(shares),
    }
