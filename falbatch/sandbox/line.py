"""The line in which requests of one account wait: first in, first out, with exact positions at any length."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from falbatch.sandbox.requests import Request


class Line:
    """A queue of requests that knows each one's position without counting through it.

    Everyone in it holds a place number, growing to the back. Who leaves from the middle stays in the deque and
    is noted in a sorted list of empty places, so that a position is a subtraction and a binary search.
    """

    def __init__(self) -> None:
        self._queue: deque[Request] = deque()
        self._front = 0
        """Place of the first entry of the deque."""
        self._gaps: list[int] = []

    def __len__(self) -> int:
        return len(self._queue) - len(self._gaps)

    def append(self, request: Request) -> None:
        """Put `request` at the back."""
        request.place = self._front + len(self._queue)
        self._queue.append(request)

    def push_front(self, request: Request) -> None:
        """Put `request` before everybody else."""
        self._front -= 1
        request.place = self._front
        self._queue.appendleft(request)

    def pop(self) -> Request:
        """Take the first one out. Raises IndexError when nobody waits."""
        request = self._queue.popleft()
        self._front += 1
        while request.place is None:
            self._gaps.pop(0)
            request = self._queue.popleft()
            self._front += 1
        request.place = None
        return request

    def remove(self, request: Request) -> None:
        """Take `request`, which is in this line, out of it."""
        if request.place is not None:
            insort(self._gaps, request.place)
            request.place = None

    def ahead_of(self, request: Request) -> int:
        """How many wait before `request`; 0 for the next one and for one that holds no place."""
        if request.place is None:
            return 0
        return request.place - self._front - bisect_left(self._gaps, request.place)
