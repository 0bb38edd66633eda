"""A run that fal calls instead of being asked: with next to no status calls, and safe whatever comes or does not."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from falbatch.faultpoints import VARIABLE
from tests.cli.conftest import MANIFEST, Ran, Shell
from tests.faults.harness import wait_until
from tests.sandbox.receiver import Receiver
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NO_LIST = {"on": "platform", "do": "status:403"}
"""A key without the right to see fal's request list."""


@pytest.fixture(scope="module")
def slow_sandbox() -> Iterator[SandboxProcess]:
    """A sandbox whose jobs take about a quarter of a second."""
    with SandboxProcess("--seed", "5", "--speed", "5") as sandbox:
        yield sandbox


@dataclass(frozen=True)
class Called:
    """A user whose runs listen for webhooks."""

    shell: Shell
    port: int

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--webhook-listen", f"127.0.0.1:{self.port}", "--webhook-url", f"{self.address}/")

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/fal"

    def jobs(self, count: int, more: str = "") -> None:
        self.shell.write("small.yaml", MANIFEST.replace("[0, 4]", f"[0, {count}]") + more)

    def run(self, *words: str, **changes: str) -> Ran:
        return self.shell.falbatch("run", "small.yaml", "--json", *self.flags, *words, **changes)

    def calls(self, what: str) -> int:
        counts: dict[str, int] = self.shell.sandbox.stats()["requests"].get(what, {})
        return sum(counts.values())

    def seeds(self) -> list[int]:
        """What fal has run, each as often as it did."""
        return sorted(execution["input"]["seed"] for execution in self.shell.sandbox.ledger()["executions"])

    def tokens(self) -> list[str]:
        """Those that fal was given."""
        return [page["url"].rpartition("/")[2] for page in self.deliveries()]

    def deliveries(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.shell.sandbox.origin}/sandbox/webhooks", timeout=30) as reply:
            pages: list[dict[str, Any]] = json.load(reply)["deliveries"]
        return pages

    def post(self, token: str, headers: dict[str, str], body: bytes) -> int:
        """POST to the listener; its status, 0 for no answer."""
        request = urllib.request.Request(f"{self.address}/{token}", body, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return int(error.code)
        except OSError:
            return 0


@pytest.fixture
def called(tmp_path: Path, slow_sandbox: SandboxProcess) -> Called:
    slow_sandbox.reset()
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = int(door.getsockname()[1])
    return Called(Shell(tmp_path, slow_sandbox), port)


def report_of(ran: Ran) -> dict[str, Any]:
    return ran.objects()[-1]


def test_sixty_jobs_need_next_to_no_status_calls(called: Called) -> None:
    called.jobs(60)
    ran = called.run()
    assert ran.code == 0, ran.err
    report = report_of(ran)
    assert (report["states"]["done"], report["run"]["callbacks"]) == (60, 60)
    assert report["run"]["status_calls"] == called.calls("status")
    assert called.calls("status") < 0.2 * 60
    assert called.seeds() == list(range(60))
    assert f"listening for fal's webhooks on 127.0.0.1:{called.port}" in ran.err
    assert not any(token in ran.out + ran.err for token in called.tokens())


def test_lost_submits_are_adopted_by_their_webhooks_where_fal_lists_nothing(called: Called) -> None:
    called.jobs(12)
    lost = [{"on": "submit", "do": "drop_after", "nth": number} for number in (2, 5, 9)]
    called.shell.sandbox.add_faults([NO_LIST, *lost])
    ran = called.run()
    assert ran.code == 0, ran.err
    run = report_of(ran)["run"]
    assert (run["found"], run["found_by_callback"]) == (0, 3)
    assert report_of(ran)["states"]["done"] == 12
    assert called.seeds() == list(range(12))
    assert called.shell.submits() == 12
    assert called.shell.sandbox.ledger()["count"] == 12


def test_a_run_whose_webhooks_never_come_says_so_and_asks(called: Called) -> None:
    called.jobs(20)
    called.shell.sandbox.add_faults([{"on": "webhook", "do": "drop_before"}])
    ran = called.run()
    assert ran.code == 0, ran.err
    assert report_of(ran)["states"]["done"] == 20
    assert report_of(ran)["run"]["callbacks"] == 0
    assert "no webhook about them came here" in ran.err
    assert called.calls("result") >= 20


def test_duplicates_forgeries_and_replays_change_nothing(called: Called) -> None:
    called.jobs(40, "limits: {in_flight: 4}\n")
    sandbox = called.shell.sandbox
    with Receiver() as receiver:
        foreign = submit_elsewhere(sandbox, receiver.url)
        (got,) = receiver.wait(1)
    signed = {name: value for name, value in got.headers.items() if name.lower().startswith("x-fal-webhook")}
    sandbox.add_faults([{"on": "webhook", "do": "corrupt", "times": 2}, {"on": "webhook", "do": "duplicate", "nth": 7}])
    answers: dict[str, int] = {}

    def attack() -> None:
        def is_known() -> bool:
            return any(page["request_id"] != foreign for page in called.deliveries())

        wait_until(is_known, seconds=20, what="a request with a callback")
        token = next(page["url"] for page in called.deliveries() if page["request_id"] != foreign).rpartition("/")[2]
        answers["stranger"] = called.post("1-1-" + "0" * 32, signed, got.body)
        answers["unsigned"] = called.post(token, {}, b"{}")
        answers["changed"] = called.post(token, signed, got.body + b" ")
        answers["replayed"] = called.post(token, signed, got.body)

    attacker = threading.Thread(target=attack)
    attacker.start()
    ran = called.run()
    attacker.join()
    assert ran.code == 0, ran.err
    assert answers == {"stranger": 404, "unsigned": 400, "changed": 401, "replayed": 200}
    assert "it names another request than the one on record" in ran.err
    assert ran.err.count("not verified") == 1, "the first of a kind is told, the others wait a minute"
    run = report_of(ran)["run"]
    assert (run["callbacks"], run["callbacks_repeated"]) == (41, 1)
    assert run["callbacks_refused"] == 5
    assert report_of(ran)["states"]["done"] == 40
    assert called.shell.submits() == 41, "the foreign one is not ours"


def submit_elsewhere(sandbox: SandboxProcess, webhook: str) -> str:
    """Somebody else's request, whose signed webhook goes elsewhere."""
    url = f"{sandbox.origin}/queue/fal-ai/flux/schnell?fal_webhook={quote(webhook, safe='')}"
    body = json.dumps({"prompt": "not ours", "seed": 999, "image_size": {"width": 64, "height": 64}}).encode()
    headers = {"Authorization": "Key other:secret", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as reply:
        return str(json.load(reply)["request_id"])


def test_after_a_kill_the_same_command_goes_on_and_late_webhooks_count(called: Called) -> None:
    """The third submit's answer was here and not on record, and fal's list is closed: only its webhook tells."""
    called.jobs(6, "limits: {in_flight: 1}\n")  # nothing else is on its way when it dies
    called.shell.sandbox.add_faults([NO_LIST])
    killed = called.run(**{VARIABLE: "submit.answered#3"})
    assert killed.code == -9
    ran = called.run()
    assert ran.code == 0, ran.err
    assert report_of(ran)["states"]["done"] == 6
    assert report_of(ran)["run"]["found_by_callback"] >= 1
    assert called.seeds() == list(range(6))
    assert called.shell.submits() == 6


def test_what_cannot_work_is_said_before_anything_is_submitted(called: Called) -> None:
    called.jobs(2)
    with socket.create_server(("127.0.0.1", called.port)):
        taken = called.run()
    assert taken.code == 2
    assert f"cannot listen for webhooks on 127.0.0.1:{called.port}" in taken.err
    half = called.shell.falbatch("run", "small.yaml", "--webhook-listen", "127.0.0.1:1")
    assert half.code == 2
    assert "--webhook-listen and --webhook-url go together" in half.err
    called.jobs(2, "request: {webhook: 'https://example.org/x'}\n")
    both = called.run()
    assert both.code == 2
    assert "exclude each other" in both.err
    called.jobs(2)
    called.shell.write("bare/cryptography/__init__.py", "raise ImportError")
    bare = called.run(PYTHONPATH=str(called.shell.folder / "bare"))
    assert bare.code == 2
    assert "pip install 'falbatch[webhooks]'" in bare.err
    assert called.shell.submits() == 0


def test_an_address_that_fal_does_not_call_is_refused_before_the_first_call(called: Called) -> None:
    called.jobs(2)
    words = ("--webhook-listen", f"127.0.0.1:{called.port}", "--webhook-url", "https://10.0.0.7/x")
    ran = called.shell.falbatch("run", "small.yaml", *words, FALBATCH_ORIGIN=None, FAL_KEY="a:b")
    assert ran.code == 2
    assert "fal does not call 10.0.0.7" in ran.err
    assert not (called.shell.folder / "out").exists()


def test_a_webhook_of_the_users_own_is_told_and_the_run_asks_as_ever(called: Called) -> None:
    with Receiver() as receiver:
        called.jobs(2, f"request: {{webhook: '{receiver.url}'}}\n")
        ran = called.shell.falbatch("run", "small.yaml", "--json")
        assert ran.code == 0, ran.err
        assert len(receiver.wait(2)) == 2
    assert report_of(ran)["run"]["callbacks"] == 0
