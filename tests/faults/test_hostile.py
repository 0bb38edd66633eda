"""A fal that means harm, or is badly broken: the run ends by itself, says what happened, and gives nothing away.

Every job has an endpoint of its own, so that one run meets many traps at once and each job shows what its trap did.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from falbatch.adapters.store.addresses import JOIN_FORM, URLS
from tests.faults.ground import KEY_ID, SECRET, Ground, Recorder, each, http
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

STRANGE_ID = "0b7c1f3e-2a64-4a1c-9d0e-5f1f7f6f2b11"


@pytest.fixture(scope="module")
def fal() -> Iterator[SandboxProcess]:
    """One sandbox for all of these tests: without service times."""
    with SandboxProcess("--seed", "5", "--speed", "0") as sandbox:
        yield sandbox


@pytest.fixture
def ground(tmp_path: Path, fal: SandboxProcess) -> Ground:
    """An empty output folder amid canaries, and a fal that has seen nothing."""
    fal.reset()
    return Ground.laid(tmp_path / "top", fal)


def picture() -> bytes:
    """A small PNG that decodes."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(file, "PNG")
    return file.getvalue()


def assert_no_key(recorder: Recorder) -> None:
    """Neither the key nor any header made of it came."""
    heard = recorder.heard.lower()
    assert SECRET.encode() not in heard
    assert KEY_ID.encode() not in heard
    assert b"authorization" not in heard


def test_names_that_the_server_supplies_never_become_names_of_files(ground: Ground) -> None:
    """Traversal, an absolute path, a device, escape sequences, ten kilobytes, nothing, dots: all ten of them."""
    jobs = [f"name-{number}" for number in range(10)]
    passwd = hashlib.sha256(Path("/etc/passwd").read_bytes()).digest()
    ground.traps(*jobs)
    ground.sandbox.add_faults([{"on": "result", "do": "names"}])
    ended = ground.run()

    assert ended.code == 0
    assert sorted(place.name for place in ground.out.glob("*.*") if "falbatch" not in place.name) == [
        f"{job}.png" for job in jobs
    ]
    assert hashlib.sha256(Path("/etc/passwd").read_bytes()).digest() == passwd


FORBIDDEN = {
    "metadata": "http://169.254.169.254/latest/meta-data/",
    "private": "http://10.0.0.1/a.png",
    "mapped": "http://[::ffff:10.0.0.1]/a.png",
    "number": "http://2852039166/a.png",
    "hexadecimal": "http://0xa9.254.169.254/a.png",
    "everything": "http://0.0.0.0/a.png",
    "link-local": "http://[fe80::1]/a.png",
    "multicast": "http://224.0.0.1/a.png",
    "with-user": "http://user:word@127.0.0.1:1/a.png",
    "backslash": "http://127.0.0.1\\@10.0.0.1/a.png",
    "port-of-ssh": "http://[::1]:99999/",
}
"""Addresses that no file may be fetched from, by the name of the job that is sent there."""

NOT_OF_THE_WEB = {"passwd": "file:///etc/passwd", "ftp": "ftp://127.0.0.1/a.png", "gopher": "gopher://127.0.0.1:1/_x"}


def test_files_at_forbidden_addresses_are_refused_and_named(ground: Ground) -> None:
    jobs = [*FORBIDDEN, *NOT_OF_THE_WEB, "ssh", "good"]
    ground.traps(*jobs)
    urls = {**FORBIDDEN, **NOT_OF_THE_WEB, "ssh": "http://[::1]:22/"}
    ground.sandbox.add_faults(each(urls, lambda job: {"on": "result", "do": f"foreign_files:{urls[job]}"}))
    ended = ground.run()
    ends = ground.ends()

    assert ended.code == 3
    assert {job: ends[job] for job in FORBIDDEN} == dict.fromkeys(FORBIDDEN, ("failed", "file_refused"))
    # What is no URL of the web is no file: the result itself is kept, and says what it pointed at.
    for job, url in NOT_OF_THE_WEB.items():
        assert ends[job] == ("done", "")
        assert json.loads((ground.out / f"{job}.json").read_bytes())["images"][0]["url"] == url
    assert ends["ssh"][0] in {"completed", "failed"}
    assert ends["good"] == ("done", "")
    assert len(list(ground.out.glob("*.png"))) == 1
    assert b"root:" not in b"".join(place.read_bytes() for place in ground.out.iterdir())


def test_downloads_that_are_redirected_are_checked_again_and_carry_no_key(ground: Ground) -> None:
    jobs = [*FORBIDDEN, "elsewhere"]
    ground.traps(*jobs)
    with Recorder(lambda _: http(picture(), headers="Content-Type: image/png\r\n")) as recorder:
        targets = {**FORBIDDEN, "elsewhere": f"{recorder.origin}/other.png"}
        ground.sandbox.add_faults(each(targets, lambda job: {"on": "file", "do": f"redirect:{targets[job]}"}))
        ended = ground.run()
    ends = ground.ends()

    assert ended.code == 3
    assert {job: ends[job] for job in FORBIDDEN} == dict.fromkeys(FORBIDDEN, ("failed", "file_refused"))
    assert ends["elsewhere"] == ("done", "")
    assert recorder.heard.startswith(b"GET /other.png HTTP/1.1\r\n")
    assert_no_key(recorder)


def test_urls_of_a_request_that_lead_elsewhere_are_rebuilt(ground: Ground) -> None:
    jobs = ["one", "two", "three"]
    ground.traps(*jobs)
    with Recorder() as recorder:
        ground.sandbox.add_faults([{"on": "submit", "do": f"foreign:{recorder.origin}"}])
        ended = ground.run()
        ground.sandbox.clear_faults()
        cancelled = ground.falbatch("cancel", "m.yaml", "--json")
    urls = [url for row in ground.client.query(f"SELECT {URLS} FROM requests r {JOIN_FORM}") for url in row]

    assert ended.code == 0
    assert cancelled.code == 0
    assert recorder.heard == b"", "nobody has anything to say there"
    assert len(urls) == 9
    assert [url for url in urls if not url.startswith(f"{ground.sandbox.origin}/queue/trap/")] == []


def test_a_state_file_with_foreign_urls_takes_the_key_nowhere(ground: Ground) -> None:
    """Whoever can write into the folder may forge what is on record; fal is asked about the requests all the same."""
    ground.traps("one", "two")
    ground.sandbox.add_faults([{"on": "result", "do": "status:503", "nginx": True}])
    assert ground.run().report["states"]["submitted"] == 2
    ground.sandbox.clear_faults()
    with Recorder() as recorder:
        forged = f"{recorder.origin}/x"
        ground.client.query(
            f"UPDATE requests SET status_url='{forged}', response_url='{forged}', cancel_url='{forged}'"
        )
        ended = ground.run()
    assert ended.code == 0
    assert recorder.heard == b""


def test_redirects_of_calls_with_the_key_are_not_followed_elsewhere(ground: Ground) -> None:
    """A redirected submit did nothing; a redirected read is somebody's mistake, and the request is still there."""
    ground.traps("submit", "status", "result", "good")
    with Recorder() as recorder:
        ground.sandbox.add_faults(
            each(("submit", "status", "result"), lambda call: {"on": call, "do": f"redirect:{recorder.origin}/grab"})
        )
        ended = ground.run()
        ground.sandbox.clear_faults()
    assert recorder.heard == b""
    assert ended.code == 3
    assert ground.ends() == {
        "submit": ("failed", "http_307"),
        "status": ("submitted", "http_307"),
        "result": ("submitted", "http_307"),
        "good": ("done", ""),
    }
    assert ground.run("--retry-failed").code == 0
    assert ground.sandbox.ledger()["count"] == 4


BROKEN = ("huge:2", "deep", "types")


def test_broken_answers_lose_nothing_that_was_paid(ground: Ground) -> None:
    """Too big, too deep, of absurd types: a submit's header still names its request; reads are made again later."""
    traps = {f"{call}-{do.partition(':')[0]}": (call, do) for call in ("submit", "status", "result") for do in BROKEN}
    ground.traps(*traps)
    ground.sandbox.add_faults(each(traps, lambda job: {"on": traps[job][0], "do": traps[job][1]}))
    ended = ground.run(hasty=True)
    ends = ground.ends()

    assert ended.code == 3
    for job in traps:
        is_read_later = job.startswith("status") or job in {"result-huge", "result-deep"}
        assert ends[job] == (("submitted", "bad_reply") if is_read_later else ("done", "")), job
    ground.sandbox.clear_faults()
    assert ground.run().code == 0
    assert ground.sandbox.ledger()["count"] == len(traps)


def test_endless_and_dripping_bodies_are_cut_off(ground: Ground) -> None:
    traps: dict[str, dict[str, Any]] = {
        "endless-file": {"on": "file", "do": "endless"},
        "dripping-file": {"on": "file", "do": "drip:0.05"},
        "endless-result": {"on": "result", "do": "endless"},
        "dripping-result": {"on": "result", "do": "drip:0.2", "times": 3},
        "dripping-status": {"on": "status", "do": "drip:0.2", "times": 3},
        "dripping-submit": {"on": "submit", "do": "drip:0.2"},
        "slow-submit": {"on": "submit", "do": "drip:0.0001"},
    }
    ground.traps(*traps)
    ground.sandbox.add_faults(each(traps, lambda job: traps[job]))
    ended = ground.run(hasty=True)

    assert ended.code == 3
    assert ground.ends() == {
        "endless-file": ("failed", "file_refused"),
        "dripping-file": ("completed", "transport_timeout"),
        "endless-result": ("submitted", "bad_reply"),
        "dripping-result": ("done", ""),
        "dripping-status": ("done", ""),
        "dripping-submit": ("done", ""),
        "slow-submit": ("done", ""),
    }
    ground.sandbox.clear_faults()
    assert ground.run().code == 3, "what was refused for good waits for a word of the user's"
    again = ground.falbatch("retry", "m.yaml", "--missing-files", "--json")
    ground.judge(again)
    assert again.code == 0
    assert ground.sandbox.ledger()["count"] == len(traps)


def test_an_endless_result_ends_at_the_programs_own_bound(ground: Ground) -> None:
    """256 MiB, once: then the answer is as it should be."""
    ground.traps("one")
    ground.sandbox.add_faults([{"on": "result", "do": "endless", "times": 1}])
    assert ground.run().code == 0
    (fault,) = ground.sandbox.faults()
    assert fault["fired"] == 1


@pytest.mark.parametrize("do", ["huge:2", "types", "redirect:ELSEWHERE"])
def test_a_broken_request_list_leaves_lost_submits_unknown_and_unposted(ground: Ground, do: str) -> None:
    ground.traps("lost", "good")
    with Recorder() as recorder:
        ground.sandbox.add_faults(
            [
                {"on": "submit", "do": "drop_after", "endpoint": "trap/lost"},
                {"on": "platform", "do": do.replace("ELSEWHERE", f"{recorder.origin}/grab")},
            ]
        )
        ended = ground.run("--reconcile-wait", "0.5", hasty=True)
        ground.sandbox.clear_faults()
    assert recorder.heard == b""
    state, _ = ground.ends()["lost"]
    # Two more megabytes are no harm to who reads up to 64: then the lost one is found.
    assert (ended.code, state) == ((0, "done") if do == "huge:2" else (3, "unknown"))
    assert ground.sandbox.ledger()["count"] == 2
    settled = ground.falbatch("reconcile", "m.yaml", "--json")
    ground.judge(settled)
    assert settled.code == 0
    assert ground.sandbox.ledger()["count"] == 2


def test_hostile_submits_are_never_posted_again(ground: Ground) -> None:
    """Twice the same command, all doors hostile: a job is adopted or unknown, and each was posted once at most."""
    does = ("drop_after", "hang", "corrupt", "truncate", "wrong_type", "deep", "types", "drip:1")
    jobs = {f"submit-{do.partition(':')[0].replace('_', '-')}": do for do in does}
    ground.traps(*jobs)
    ground.sandbox.add_faults(each(jobs, lambda job: {"on": "submit", "do": jobs[job]}))
    ground.sandbox.add_faults([{"on": "platform", "do": "deep"}])
    for _ in range(2):
        ended = ground.run("--reconcile-wait", "0.2", hasty=True)
        assert ended.code in {3, 5}
        assert {state for state, _ in ground.ends().values()} <= {"unknown", "done", "planned"}
    assert ground.ends()["submit-hang"] == ("unknown", "transport_timeout")
    assert ground.sandbox.ledger()["count"] == sum(ground.sandbox.stats()["requests"]["submit"].values())


def test_one_id_for_all_submits_is_one_jobs_and_the_others_are_looked_for(ground: Ground) -> None:
    ground.traps("one", "two", "three")
    lie = {"on": "submit", "do": "status:200", "accepted": True, "body": {"request_id": STRANGE_ID}}
    ground.sandbox.add_faults([lie])
    ended = ground.run("--reconcile-wait", "1", lies=True)
    ends = sorted(ground.ends().values())

    assert ended.code == 3
    assert ends == [("done", ""), ("done", ""), ("failed", "result_gone")]
    assert ground.client.query(f"SELECT count(*) FROM requests WHERE request_id = '{STRANGE_ID}'") == [(1,)]


class AbsurdFal:
    """A fal whose every number is far beyond what anything has room for."""

    HUGE = 10**30

    def __init__(self) -> None:
        self.origin = ""
        self.posts = 0

    def answer(self, request: bytes) -> bytes:
        head = request.partition(b"\r\n")[0].decode()
        if head.startswith("POST"):
            self.posts += 1
            return self._json({"request_id": STRANGE_ID, "queue_position": self.HUGE})
        if "pricing" in head:
            prices = [{"endpoint_id": "trap/one", "unit_price": self.HUGE, "unit": "images", "currency": "USD"}]
            prices.append({"endpoint_id": "trap/one", "unit_price": 123456789, "unit": "images", "currency": "USD"})
            return self._json({"prices": prices})
        if "/status" in head:
            return self._json({"status": "COMPLETED", "metrics": {"inference_time": self.HUGE}})
        if "/requests/" in head:
            file = {"url": f"{self.origin}/a.png", "file_size": -self.HUGE, "content_type": "image/png"}
            return self._json({"images": [file], "seed": self.HUGE})
        return http(picture(), headers="Content-Type: image/png\r\n")

    def _json(self, page: dict[str, Any]) -> bytes:
        numbers = f"X-Fal-Billable-Units: 9e307\r\nRetry-After: {self.HUGE}\r\nX-Fal-Request-Id: {STRANGE_ID}\r\n"
        return http(json.dumps(page).encode(), headers=f"Content-Type: application/json\r\n{numbers}")


def test_numbers_that_nothing_has_room_for_do_no_harm(ground: Ground) -> None:
    absurd = AbsurdFal()
    ground.traps("one")
    with Recorder(absurd.answer) as recorder:
        absurd.origin = recorder.origin
        ended = ground.falbatch("run", "m.yaml", "--json", "--max-cost", "1000000000", FALBATCH_ORIGIN=recorder.origin)
        status = ground.falbatch("status", "m.yaml", "--json")
        export = ground.falbatch("export", "m.yaml")
    ground.judge(ended)
    assert (ended.code, status.code, export.code) == (0, 0, 0)
    assert absurd.posts == 1
    assert json.loads(export.out)["result"]["seed"] == AbsurdFal.HUGE


def test_everything_at_once(ground: Ground) -> None:
    """Thirty jobs, a dozen kinds of harm by chance: each ends somehow, and the same command brings the rest home."""
    jobs = [f"job-{number}" for number in range(30)]
    ground.traps(*jobs)
    with Recorder(lambda _: http(picture(), headers="Content-Type: image/png\r\n")) as recorder:
        here = recorder.origin
        faults: list[dict[str, Any]] = [
            {"on": "submit", "do": f"foreign:{here}", "p": 0.4},
            {"on": "submit", "do": "types", "p": 0.2},
            {"on": "submit", "do": "drop_after", "p": 0.2},
            {"on": "status", "do": f"redirect:{here}/grab", "p": 0.15},
            {"on": "status", "do": "types", "p": 0.3},
            {"on": "result", "do": "names", "p": 0.4},
            {"on": "result", "do": "deep", "p": 0.3},
            {"on": "result", "do": "foreign_files:http://169.254.169.254/", "p": 0.2},
            {"on": "file", "do": "redirect:http://10.0.0.1/", "p": 0.2},
            {"on": "file", "do": f"redirect:{here}/other.png", "p": 0.2},
            {"on": "file", "do": "wrong_type", "p": 0.4},
        ]
        ground.sandbox.add_faults(faults)
        ended = ground.run("--reconcile-wait", "3", hasty=True)
        assert ended.code in {0, 3}
        assert sum(fault["fired"] > 0 for fault in ground.sandbox.faults()) == len(faults), "every trap was met"
        ground.sandbox.clear_faults()
        ground.run("--reconcile-wait", "3")
        again = ground.falbatch("retry", "m.yaml", "--missing-files", "--json")
        ground.judge(again)
    assert_no_key(recorder)
    # Results that pointed at forbidden places are on record so: whoever wants these jobs has to run them again.
    refused = {name for name, end in ground.ends().items() if end == ("failed", "file_refused")}
    poisoned = ground.client.query(
        "SELECT name FROM jobs j JOIN results r ON r.job_id = j.id WHERE instr(r.body, '169.254.169.254') > 0"
    )
    assert refused == {name for (name,) in poisoned}
    assert {end for name, end in ground.ends().items() if name not in refused} == {("done", "")}
    assert ground.sandbox.ledger()["count"] == len(jobs)
