"""What a person sees during a run: a bar at a terminal, a plain line every few seconds without one."""

from __future__ import annotations

import io
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn, Self, TextIO

from falbatch.core.events import Counter, JobEnded, Notice, Reconciled, RunEvent, RunStopping
from falbatch.core.state import State
from falbatch.core.words import in_time

if TYPE_CHECKING:
    from types import TracebackType

    from tqdm import tqdm

LINE_EVERY_S: Final = 5.0
"""Between two plain lines: a log of a night stays readable."""

POSTFIX_EVERY_S: Final = 0.2
"""tqdm's postfix costs 26 µs a time (measured): not at every event."""

GONE: Final = (OSError, ValueError)
"""What writing raises when nobody can read any more: EIO or EPIPE, or the stream itself is closed."""


class ProgressDisplay:
    """Shows a `Counter` that the engine keeps. Use as a context manager; call it with each event."""

    def __init__(self, counter: Counter, *, stream: TextIO | None = None, is_terminal: bool | None = None) -> None:
        self._counter = counter
        # Without a stderr (`2>&-`) Python has None for it: a closed stream is as good.
        self._stream = stream or sys.stderr or _closed()
        self._is_terminal = _has_width(self._stream) if is_terminal is None else is_terminal
        self._began_s = self._shown_s = time.monotonic()
        self._bar: tqdm[NoReturn] | None = None
        self._is_silent = False

    def __enter__(self) -> Self:
        if self._is_terminal:
            from tqdm import tqdm

            try:
                self._bar = tqdm(
                    total=self._counter.total,
                    initial=self._counter.done,
                    unit="job",
                    file=self._stream,
                    dynamic_ncols=True,
                    smoothing=0.05,
                )
            except GONE:
                self._is_silent = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(*GONE):
            if self._bar is not None:
                self._bar.set_postfix_str(self._details())
                self._bar.close()
            elif not self._is_silent:
                self._line()

    def __call__(self, event: RunEvent) -> None:
        """Follow one event of the run. When nobody reads any more, it goes silent: the run is worth more."""
        if self._is_silent:
            return
        try:
            self._follow(event)
        except GONE:
            self._is_silent = True

    def _follow(self, event: RunEvent) -> None:
        if isinstance(event, RunStopping):
            self.note(f"stopping: {event.reason}; nothing more is submitted")
        if text := words_of(event):
            self.note(text)
        if self._bar is None:
            if time.monotonic() - self._shown_s >= LINE_EVERY_S:
                self._line()
            return
        if isinstance(event, JobEnded) and event.state is State.DONE:
            self._bar.update()
        if time.monotonic() - self._shown_s >= POSTFIX_EVERY_S:
            self._shown_s = time.monotonic()
            self._bar.set_postfix_str(self._details())

    def note(self, text: str) -> None:
        """Say something without breaking the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def _line(self) -> None:
        self._shown_s = time.monotonic()
        counter = self._counter
        elapsed_s = max(self._shown_s - self._began_s, 0.001)
        rate = counter.ended.get(State.DONE, 0) / elapsed_s
        left = max(0, counter.total - counter.done - counter.failed)
        eta = f", about {in_time(left / rate)} left" if rate > 0 and left else ""
        self.note(f"{counter.done}/{counter.total} done, {rate:.1f}/s{eta}, {self._details()}")

    def _details(self) -> str:
        counter = self._counter
        parts = [f"at fal {max(0, counter.at_fal)}"]
        if counter.uploading > 0:
            parts.append(f"uploading {counter.uploading}")
        if counter.downloading > 0:
            parts.append(f"downloading {counter.downloading}")
        unknown = counter.ended.get(State.UNKNOWN, 0)
        parts.append(f"failed {counter.failed - unknown}")
        if unknown:
            parts.append(f"unknown {unknown}")
        parts.append(f"retries {counter.further_attempts + counter.refusals}")
        return ", ".join(parts)


def words_of(event: RunEvent) -> str:
    """What a person is told of an event in a line of its own; "" for nothing."""
    match event:
        case Notice(text=text):
            return f"note: {text}"
        case Reconciled():
            return _reconciled_words(event)
        case _:
            return ""


def _reconciled_words(event: Reconciled) -> str:
    text = f"looked for submits without an answer: {event.found} found, {event.left} still unknown"
    if event.trouble:
        text += f" ({event.trouble})"
    if event.left and event.patience_s >= 1:
        text += f"; looking on for up to {in_time(event.patience_s)}"
    return text


def _closed() -> TextIO:
    stream = io.StringIO()
    stream.close()
    return stream


def _has_width(stream: TextIO) -> bool:
    """True at a terminal that knows how wide it is: at one of 0 columns (expect, some CI) tqdm's bar is empty."""
    with suppress(*GONE):
        return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0
    return False
