"""What the benchmarks' fal itself can do: whole jobs over bare sockets, next to nothing parsed, nothing kept.

`python -m tests.bench.raw ORIGIN JOBS CONNECTIONS` does JOBS jobs (submit, one status, result, file) and prints
`{"wall_s": …, "cpu_s": …}`. No client that does anything with the answers can be faster than this on one core.
"""

from __future__ import annotations

import json
import resource
import select
import socket
import sys
import time
from typing import Final
from urllib.parse import urlsplit

HOST: Final = b"host: bench\r\nauthorization: Key bench:raw\r\n"
BODY: Final = b'{"prompt":"bench","seed":7}'
SUBMIT: Final = b"POST /queue/fal-ai/flux/schnell HTTP/1.1\r\n%scontent-length: %d\r\n\r\n%s" % (HOST, len(BODY), BODY)


class Worker:
    """One connection, doing one job after another."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pieces: list[bytes] = []
        self._missing = 0
        """Bytes of the answer that have not come; 0: nothing of it has."""
        self._step = 0
        self._app = b""

    def begin(self) -> None:
        """Submit the next job."""
        self._step = 0
        self.socket.sendall(SUBMIT)

    def read(self) -> bool:
        """Take what has come and go on. True when a job has ended."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the benchmarks' fal hung up")
        if not self._missing:
            end = data.index(b"\r\n\r\n") + 4
            start = data.index(b"content-length:") + 15
            self._missing = end + int(data[start : data.index(b"\r\n", start)])
        self._missing -= len(data)
        self._pieces.append(data)
        if self._missing:
            return False
        answer = b"".join(self._pieces)
        self._pieces.clear()
        return self._next(answer)

    def _next(self, answer: bytes) -> bool:
        self._step += 1
        if self._step == 1:
            start = answer.index(b'"response_url":"http://') + 23
            self._app = answer[answer.index(b"/", start) : answer.index(b'"', start)]
            self._get(self._app + b"/status")
        elif self._step == 2:
            self._get(self._app)
        elif self._step == 3:
            start = answer.index(b'"url":"http://') + 14
            self._get(answer[answer.index(b"/", start) : answer.index(b'"', start)])
        return self._step == 4

    def _get(self, path: bytes) -> None:
        self.socket.sendall(b"GET %s HTTP/1.1\r\n%s\r\n" % (path, HOST))


def work(origin: str, jobs: int, connections: int) -> None:
    """Do `jobs` jobs over `connections` connections."""
    parts = urlsplit(origin)
    address = (parts.hostname or "", parts.port or 80)
    workers = [Worker(address) for _ in range(min(connections, jobs))]
    poll = select.epoll()
    by_number = {one.socket.fileno(): one for one in workers}
    for number, one in by_number.items():
        poll.register(number, select.EPOLLIN)
        one.begin()
    begun, ended = len(workers), 0
    while ended < jobs:
        for number, _ in poll.poll():
            if by_number[number].read():
                ended += 1
                if begun < jobs:
                    begun += 1
                    by_number[number].begin()
    for one in workers:
        one.socket.close()
    poll.close()


if __name__ == "__main__":
    _, origin, jobs, connections = sys.argv
    began_s = time.perf_counter()
    work(origin, int(jobs), int(connections))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"wall_s": time.perf_counter() - began_s, "cpu_s": usage.ru_utime + usage.ru_stime}))
