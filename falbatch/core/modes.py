"""What a manifest's `mode` allows: settings that a mode gives no meaning are mistakes, not silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from falbatch.core.model import Mode
from falbatch.core.pacing import DIRECT_AT_ONCE
from falbatch.core.problems import nearest, shown
from falbatch.core.schema import dotted

if TYPE_CHECKING:
    from falbatch.core.schema import Checker
    from falbatch.core.yamltext import Path


def parse_mode(check: Checker) -> Mode:
    """The manifest's `mode`, with what it does not go together with said."""
    word = check.data.get("mode", Mode.QUEUE)
    if not isinstance(word, str) or word not in list(Mode):
        words = ", ".join(mode.value for mode in Mode)
        check.wrong(("mode",), f"mode must be one of {words}, not {shown(word)}", nearest(str(word), list(Mode)))
        return Mode.QUEUE
    mode = Mode(word)
    if mode.is_direct:
        _check_request(check, mode)
    _check_limits(check, mode)
    return mode


def _check_request(check: Checker, mode: Mode) -> None:
    request = check.data.get("request")
    if not isinstance(request, dict):
        return
    for key in request:
        if key in {"priority", "webhook"}:
            _senseless(check, ("request", key), f"mode: {mode.value} has no queue", "remove it, or use mode: queue")
        elif mode is Mode.REALTIME:
            why = "a realtime connection is shared by many jobs and takes no options of one"
            _senseless(check, ("request", key), why, "remove it, or use mode: run")


def _check_limits(check: Checker, mode: Mode) -> None:
    limits = check.data.get("limits")
    if not isinstance(limits, dict):
        return
    if "connections" in limits and mode is not Mode.REALTIME:
        why = f"mode: {mode.value} makes a connection for each call by itself"
        _senseless(check, ("limits", "connections"), why, "use limits.in_flight")
    if "polls_per_s" in limits and mode.is_direct:
        _senseless(check, ("limits", "polls_per_s"), f"mode: {mode.value} has nothing to poll", "remove it")
    in_flight = limits.get("in_flight")
    if mode.is_direct and type(in_flight) is int and in_flight > DIRECT_AT_ONCE:
        what = f"limits.in_flight must be at most {DIRECT_AT_ONCE} with mode: {mode.value}, not {shown(in_flight)}"
        check.wrong(("limits", "in_flight"), what, "each of these calls holds a connection")


def _senseless(check: Checker, path: Path, why: str, hint: str) -> None:
    check.wrong_key(path, f"{dotted(path)} makes no sense here: {why}", hint)
