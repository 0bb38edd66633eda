"""The one door between threads and coroutines: an event loop in a thread of its own, for all callers.

    any thread ─▶ Call ─▶ task in the loop ─▶ outcome            callbacks run in the caller's own thread:
                   ◀── errands ──┘                               they may call the client again

A Resident is a task that stays: what an iterator or a block began is ended in the task that began it.
Ctrl-C in the calling thread cancels its task, and waits until that has tidied up; a second one does not wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")

LEAVE_S: Final = 20.0
"""A cancelled call is given so long to tidy up: more than a submit's grace and the cancel after it."""
CLOSE_S: Final = 10.0
"""For closing connections."""


@dataclass(frozen=True, slots=True)
class _Errand:
    """Something that the loop wants done in the calling thread."""

    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    reply: asyncio.Future[Any]

    def run(self) -> None:
        """Do it and tell the loop. What is no Exception (Ctrl-C) goes on to the caller."""
        try:
            answer = partial(_settle, self.reply, self.work(), None)
        except Exception as error:  # noqa: BLE001 - it goes to whoever asked
            answer = partial(_settle, self.reply, None, error)
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            self.loop.call_soon_threadsafe(answer)


def _settle(reply: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if reply.done():
        return
    if isinstance(error, StopIteration):  # which no future can hold
        error = RuntimeError("a callback raised StopIteration")
    if error is None:
        reply.set_result(value)
    else:
        reply.set_exception(error)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How a call ended."""

    value: Any = None
    error: Exception | None = None
    is_closed: bool = False
    """The loop ended before the work did."""


_CLOSED: Final = _Outcome(is_closed=True)


class Call(Generic[T]):
    """One call from a thread into the loop."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._mail: SimpleQueue[_Errand | _Outcome] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._is_left = self._is_over = False

    def here(self, function: Callable[..., Any] | None) -> Callable[..., Awaitable[Any]] | None:
        """`function` as a coroutine function of the loop's that runs it in the calling thread."""
        if function is None:
            return None

        async def errand(*args: Any) -> Any:
            loop = asyncio.get_running_loop()
            reply = loop.create_future()
            self._mail.put(_Errand(partial(function, *args), loop, reply))
            return await reply

        return errand

    def wait(self, work: Callable[[], Awaitable[T]], resident: Resident | None = None) -> T:
        """The value of `await work()`, in a task of its own or in `resident`'s. Runs errands meanwhile."""
        outcome: _Outcome | None = None
        try:
            if resident is None:
                self._loop = self._door.post(partial(self._begin, work))
            else:
                self._loop = resident.post(self, work)
            while outcome is None:
                message = self._mail.get()
                if isinstance(message, _Outcome):
                    outcome = message
                else:
                    message.run()
        except BaseException:
            if outcome is None:
                self._leave()
            raise
        if outcome.is_closed:
            raise RuntimeError("the client was closed while a call was under way")
        if outcome.error is not None:
            raise outcome.error
        value: T = outcome.value
        return value

    def _leave(self) -> None:
        """Cancel, and wait for the end; errands are not run any more."""
        with contextlib.suppress(Empty, RuntimeError):  # which a door that could not be entered raises again
            self._door.post(lambda _: self._stop(), self._loop)
            while not isinstance(self._mail.get(timeout=LEAVE_S), _Outcome):
                pass

    # in the loop

    def _begin(self, work: Callable[[], Awaitable[T]], loop: asyncio.AbstractEventLoop) -> None:
        self._door.keep(loop.create_task(self.run(work)), self.abandon)

    def _stop(self) -> None:
        self._is_left = True
        if self._task is None:
            self.abandon()  # not begun: nothing is to be tidied up
        elif not self._is_over:
            self._task.cancel()

    async def run(self, work: Callable[[], Awaitable[T]]) -> None:
        """Do the work and tell the caller. Raises CancelledError only when the loop itself ends."""
        task = self._task = asyncio.current_task()
        outcome = _CLOSED
        try:
            if not self._is_left:
                outcome = _Outcome(await work())
        except asyncio.CancelledError:
            if not self._is_left:
                raise
            if task is not None:
                task.uncancel()
        except Exception as error:  # noqa: BLE001 - it goes to the caller
            outcome = _Outcome(error=error)
        finally:
            self._end(outcome)

    def abandon(self) -> None:
        """Nobody will do the work any more: the loop has ended. Does nothing when it was done."""
        self._end(_CLOSED)

    def _end(self, outcome: _Outcome) -> None:
        if not self._is_over:
            self._is_over = True
            self._mail.put(outcome)


class Resident:
    """A task in the loop that does what it is told, one thing after another."""

    def __init__(self, door: Door, close: Callable[[], Awaitable[object]]) -> None:
        """`close` is called, in this task, once and at the latest when the loop ends."""
        self._door = door
        self._close: Callable[[], Awaitable[object]] | None = close
        self._orders: asyncio.Queue[tuple[Call[Any], Callable[[], Awaitable[Any]]] | None] = asyncio.Queue()
        self._has_ended = False
        self._loop = door.post(lambda loop: door.keep(loop.create_task(self._live()), self._abandon))

    def do(self, work: Callable[[], Awaitable[T]]) -> T:
        """The value of `await work()`, in this task."""
        return Call[T](self._door).wait(work, self)

    def post(self, call: Call[Any], work: Callable[[], Awaitable[Any]]) -> asyncio.AbstractEventLoop | None:
        """Do `work` for `call` when its turn comes; abandon it when the loop has ended."""
        loop = self._door.post(
            lambda _: call.abandon() if self._has_ended else self._orders.put_nowait((call, work)), self._loop
        )
        if loop is None:
            call.abandon()
        return loop

    def end(self) -> None:
        """Close, and take no more orders. Does nothing when the loop has ended: all is closed then."""
        if self._door.is_inside:  # an iterator that was dropped, and collected in the loop's own thread
            self._orders.put_nowait(None)
            return
        with contextlib.suppress(RuntimeError):
            self.do(self._closed)
        self._door.post(lambda _: self._orders.put_nowait(None), self._loop)

    async def _live(self) -> None:
        try:
            while (order := await self._orders.get()) is not None:
                call, work = order
                await call.run(work)
        finally:
            await self._closed()

    async def _closed(self) -> None:
        close, self._close = self._close, None
        if close is not None:
            await close()

    def _abandon(self) -> None:
        self._has_ended = True
        while not self._orders.empty():
            if (order := self._orders.get_nowait()) is not None:
                order[0].abandon()


class Door:
    """The loop and its thread, started when first needed, and again after `close` or a fork."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.RLock()  # a dropped iterator may be collected, and so ended, while we hold it
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_inside(self) -> bool:
        """True in the loop's own thread, which must not wait for the loop."""
        return self._thread is threading.current_thread()

    def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """The value of `await work()`, from any thread but the loop's own."""
        return Call[T](self).wait(work)

    def post(
        self, action: Callable[[asyncio.AbstractEventLoop], object], loop: asyncio.AbstractEventLoop | None = None
    ) -> asyncio.AbstractEventLoop | None:
        """Have `action(loop)` run soon, in the running loop, or a new one; which, is answered.

        With `loop` only there: None when that one has ended. RuntimeError from within the loop's own thread, and
        when the program is ending.
        """
        with self._lock:
            if self.is_inside:
                raise RuntimeError("the synchronous client was called from its own event loop; use AsyncClient there")
            lives = self._thread is not None and self._thread.is_alive()
            if loop is not None and (not lives or self._loop is not loop):
                return None
            if not lives or self._loop is None:
                self._start()
            current = self._loop
            if current is not None:
                current.call_soon_threadsafe(action, current)
            return current

    def keep(self, task: asyncio.Task[Any], over: Callable[[], None]) -> None:
        """Hold `task` until it is done, since the loop itself does not; then call `over`."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: over())

    def close(self) -> None:
        """End the loop: calls under way fail, connections are closed. Does nothing when it is not running."""
        with self._lock:
            thread, loop, stop = self._thread, self._loop, self._stop
            self._thread = self._loop = self._stop = None
        if thread is None or loop is None or stop is None or not thread.is_alive():
            return
        with contextlib.suppress(RuntimeError):  # it has ended meanwhile
            loop.call_soon_threadsafe(stop.set)
        if thread is not threading.current_thread():  # the last reference may be dropped anywhere
            thread.join(CLOSE_S)

    def _start(self) -> None:
        if sys.is_finalizing():
            raise RuntimeError("the program is ending: no call can be made any more")
        is_ready = threading.Event()

        async def live() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            stop = self._stop
            is_ready.set()
            await stop.wait()

        # A daemon, so that a program that never closes its client can end: its `close` then runs at exit.
        self._tasks = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(live()), name=self._name, daemon=True)
        self._thread.start()
        is_ready.wait()


_END: Final = object()


def drawn(door: Door, make: Callable[[], AsyncGenerator[T, None]]) -> Iterator[T]:
    """The values of an asynchronous generator, begun and ended in one task. Nothing happens before the first."""
    values = make()
    resident = Resident(door, values.aclose)
    try:
        while (value := resident.do(lambda: _next(values))) is not _END:
            yield value
    finally:
        resident.end()


async def _next(values: AsyncGenerator[T, None]) -> Any:
    return await anext(values, _END)


@contextmanager
def entered(door: Door, block: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """The value of an asynchronous block, entered and left in one task."""
    is_entered = False

    async def enter() -> T:
        nonlocal is_entered
        value = await block.__aenter__()
        is_entered = True
        return value

    async def leave() -> None:
        # What ended the block stays in its own thread: an interrupt must not end the loop.
        if is_entered:
            await block.__aexit__(None, None, None)

    resident = Resident(door, leave)
    try:
        yield resident.do(enter)
    finally:
        resident.end()
