"""Kill falbatch and its fal as often as asked, and check after each batch that nothing was paid twice or lost.

python -m tests.faults --kills 10000
python -m tests.faults --replay 20261121:17
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.rounds import KILLS_MOST, Tally, play


def main() -> int:
    """Play rounds until enough kills were made, or one of them breaks a promise."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="kills to make, at least (default 100)")
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="draw the same rounds again")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="W", help="rounds at a time")
    parser.add_argument("--replay", metavar="SEED:ROUND", help="play one round again, and keep its folder")
    options = parser.parse_args()
    if options.replay:
        folder = Path(f"replay-{options.replay.replace(':', '-')}").absolute()
        folder.mkdir()
        print(_line(play(options.replay, keep=folder), KILLS_MOST))
        return 0
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4))
    print(f"seed {seed}", flush=True)
    return _Rounds(seed, options.kills).play(options.workers)


def _line(tally: Tally, wanted: int) -> str:
    return (
        f"{tally.kills}/{wanted} kills ({tally.at_points} at named points, {tally.of_sandbox} of fal), {tally.rounds}"
        f" batches of {tally.jobs} jobs, {tally.executions} executions; without an answer: {tally.found} found,"
        f" {tally.confirmed} submitted again on demand"
    )


class _Rounds:
    def __init__(self, seed: int, kills: int) -> None:
        self._seed = seed
        self._kills = kills
        self._tally = Tally()
        self._number = 0
        self._failed = ""
        self._lock = threading.Lock()
        self._began_s = time.monotonic()

    def play(self, workers: int) -> int:
        with ThreadPoolExecutor(workers) as pool:
            for work in [pool.submit(self._work) for _ in range(workers)]:
                work.result()
        print(f"points: {dict(sorted(self._tally.by_point.items()))}")
        if self._failed:
            print(f"BROKEN in round {self._failed}; play it again: python -m tests.faults --replay {self._failed}")
            return 1
        print(f"every promise held in {time.monotonic() - self._began_s:.0f} s")
        return 0

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._failed or self._tally.kills >= self._kills:
                    return
                self._number += 1
                name = f"{self._seed}:{self._number}"
            try:
                tally = play(name, kills=self._kills)
            except Exception:  # noqa: BLE001  (whatever it is, the round is worth a look)
                with self._lock:
                    self._failed = name
                    traceback.print_exc()
                return
            with self._lock:
                self._tally.add(tally)
                print(f"{time.monotonic() - self._began_s:6.0f} s  {_line(self._tally, self._kills)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
