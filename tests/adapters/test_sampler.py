"""Processor time is told apart by the files that are at work, real threads at real work."""

from __future__ import annotations

import hashlib
import threading
import time

from falbatch.adapters.sampler import Sampler

HERE = __file__


def works(seconds: float) -> None:
    end_s = time.thread_time() + seconds
    while time.thread_time() < end_s:
        hashlib.sha256(b"x" * 10_000).digest()


def test_work_belongs_to_its_file_and_waiting_to_nobody() -> None:
    sampler = Sampler(lambda path: "work" if path == HERE else None, rest="rest")
    with sampler:
        waits = threading.Event()
        idle = threading.Thread(target=waits.wait, args=(30,))
        idle.start()
        busy = threading.Thread(target=works, args=(0.2,))
        busy.start()
        works(0.2)
        busy.join()
        waits.set()
        idle.join()
    seconds = sampler.seconds
    assert seconds is not None
    assert seconds["work"] > 0.2
    assert seconds["work"] > 5 * seconds.get("rest", 0.0)
