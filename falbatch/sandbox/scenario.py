"""The scenario file: YAML, strict, read once at start.

```yaml
seed: 7
concurrency: 4
speed: 10
locked: false                        # true: every account is out of credit
durations: {"fal-ai/flux/*": 2.5, "fal-ai/slow": [60, 0.1]}      # median seconds, spread of the log-normal
result_window_s: 360                 # a result turns into 404 so long after completion
cancel_running: stop                 # or finish, the default: a running request ignores a cancel
model_errors_in_status: true         # a 422 also puts `error` into the status (fal-protocol §3.8, unknown)
listing_lag_s: 5                     # an ended request is in the platform's list only so long after its end
listing_payloads: false              # or true, the default: the account keeps inputs and outputs for that list
webhook_timeout_s: [15, 120]         # a receiver's time for the first attempt, and for each retry; or one number
sorted_parts: true                   # an upload's list of parts must be in order, else 400: as with S3; fal takes any
realtime_idle_s: 60                  # a WebSocket without a message for so long is closed
faults:
  - {on: submit, do: "status:429", retry_after: 1, p: 0.1}
```
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from falbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Duration:
    """Service time of the endpoints that `pattern` (fnmatch) names."""

    pattern: str
    median_s: float
    spread: float | None
    """Sigma of the log-normal; None for the endpoint's own."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a scenario file says; None or empty where it says nothing."""

    seed: int | None = None
    concurrency: int | None = None
    speed: float | None = None
    locked: bool = False
    durations: tuple[Duration, ...] = ()
    result_window_s: float | None = None
    cancel_running: str = "finish"
    model_errors_in_status: bool = False
    listing_lag_s: float = 0.0
    listing_payloads: bool = True
    webhook_timeout_s: tuple[float, float] = (15.0, 120.0)
    """For the first attempt, and for each retry (fal-protocol §4.2)."""
    realtime_idle_s: float = 60.0
    sorted_parts: bool = False
    faults: tuple[Mapping[str, Any], ...] = ()
    """Checked, but still as written: numbers are given when they come into force."""

    def duration_of(self, endpoint: str) -> Duration | None:
        """The first duration whose pattern names `endpoint`."""
        return next((d for d in self.durations if fnmatchcase(endpoint, d.pattern)), None)


def load_scenario(path: Path) -> Scenario:
    """Read and check a scenario file. Raises UsageError with what is wrong in it."""
    import yaml

    from falbatch.sandbox.plainyaml import PlainLoader

    try:
        value = yaml.load(path.read_text(encoding="utf-8"), PlainLoader)  # noqa: S506 - it is a SafeLoader
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read the scenario {path}: {error}", advice="Give --scenario a YAML file.") from error
    try:
        return parse_scenario(value)
    except ValueError as error:
        raise UsageError(f"{path}: {error}", advice="Fix the scenario file and start again.") from error


def parse_scenario(value: object) -> Scenario:
    """A scenario from what the YAML holds. Raises ValueError."""
    from falbatch.sandbox.rules import known_word, parse_rules

    if value is None:
        return Scenario()
    if not isinstance(value, dict):
        raise ValueError(f"a scenario is a mapping, not {type(value).__name__}")  # noqa: TRY004 - one kind of error here
    fields: dict[str, Any] = {}
    for key, setting in value.items():
        known_word(str(key), _READERS, "a key of a scenario")
        fields[key] = _READERS[key](key, setting)
    parse_rules(list(fields.get("faults", ())), 0)
    return Scenario(**fields)


def _whole(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or (key == "concurrency" and value < 1):
        raise ValueError(f"{key}: expected a whole number, not {value!r}")
    return value


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"{key}: expected a number from 0, not {value!r}")
    return float(value)


def _boolean(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{key}: expected true or false, not {value!r}")  # noqa: TRY004 - one kind of error here
    return value


def _choice(key: str, value: object) -> str:
    if value not in ("finish", "stop"):
        raise ValueError(f"{key}: expected finish or stop, not {value!r}")
    return str(value)


def _durations(key: str, value: object) -> tuple[Duration, ...]:
    if not isinstance(value, dict):
        raise ValueError(f"{key}: expected patterns with seconds, not {value!r}")  # noqa: TRY004
    return tuple(_duration(str(pattern), setting) for pattern, setting in value.items())


def _duration(pattern: str, setting: object) -> Duration:
    parts = setting if isinstance(setting, list) else [setting]
    if not 1 <= len(parts) <= 2:
        raise ValueError(f"durations: {pattern}: expected seconds or [seconds, spread], not {setting!r}")
    numbers = [_number(f"durations: {pattern}", part) for part in parts]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"durations: {pattern}: expected finite numbers")
    return Duration(pattern, numbers[0], numbers[1] if len(numbers) == 2 else None)


def _faults(key: str, value: object) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list):
        raise ValueError(f"{key}: expected a list of rules, not {value!r}")  # noqa: TRY004
    return tuple(value)


def _two_numbers(key: str, value: object) -> tuple[float, float]:
    first, second = value if isinstance(value, list) and len(value) == 2 else (value, value)
    return _number(key, first), _number(key, second)


_READERS: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "seed": _whole,
    "concurrency": _whole,
    "speed": _number,
    "locked": _boolean,
    "durations": _durations,
    "result_window_s": _number,
    "cancel_running": _choice,
    "model_errors_in_status": _boolean,
    "listing_lag_s": _number,
    "listing_payloads": _boolean,
    "webhook_timeout_s": _two_numbers,
    "realtime_idle_s": _number,
    "sorted_parts": _boolean,
    "faults": _faults,
}
