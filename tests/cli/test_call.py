"""`falbatch call`: nothing is paid for that could have been known to fail, and what was paid for is printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Shell
    from tests.sandbox_process import SandboxProcess

SCHNELL = "fal-ai/flux/schnell"
REALTIME = "fal-ai/fast-lcm-diffusion"


@pytest.fixture(autouse=True)
def _no_faults(cli_sandbox: SandboxProcess) -> Iterator[None]:
    yield
    cli_sandbox.clear_faults()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((SCHNELL, "prompt=x", "weight=NaN"), "cannot be sent as JSON"),
        ((REALTIME, "prompt=x", "seed=99999999999999999999", "--realtime"), "64 bits"),
        ((SCHNELL, "prompt=x", "--timeout", "-1"), "--timeout"),
        ((SCHNELL, "prompt=x", "--timeout", "nan", "--run"), "--timeout"),
        ((SCHNELL, "--result", "a/b?c"), "not a request id"),
        ((SCHNELL, "prompt=x", "--run", "--output", "taken"), "cannot be a folder"),
    ],
)
def test_what_must_fail_fails_before_it_costs(words: tuple[str, ...], said: str, shell: Shell) -> None:
    shell.write("taken", "a file")
    ran = shell.falbatch("call", *words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert "Nothing was submitted" in ran.err
    assert shell.sandbox.stats()["requests"].keys() <= {"sandbox"}


def test_a_paid_output_is_printed_though_its_files_cannot_be_had(shell: Shell) -> None:
    shell.sandbox.add_faults([{"on": "file", "do": "status:404"}])
    ran = shell.falbatch("call", SCHNELL, "prompt=x", "--run", "--output", "out", "--json")
    assert (ran.code, len(ran.objects()[0]["images"])) == (2, 1)
    assert "The result has been printed" in ran.err


def test_a_time_that_is_over_ends_any_way_of_calling(shell: Shell) -> None:
    said = shell.falbatch("call", SCHNELL, "prompt=x").err
    request_id = said.split()[1]
    shell.sandbox.add_faults([{"on": "realtime", "do": "hang"}, {"on": "status", "do": "hang"}])
    ran = shell.falbatch("call", REALTIME, "prompt=x", "--realtime", "--timeout", "0.5")
    assert (ran.code, "timed out after 0.5 seconds" in ran.err) == (3, True)
    ran = shell.falbatch("call", SCHNELL, "--result", request_id, "--timeout", "0.5")
    assert (ran.code, f"{request_id} timed out" in ran.err, "not cancelled" in ran.err) == (3, True, True)
    assert "cancel" not in shell.sandbox.stats()["requests"]


def test_advice_is_given_once_and_a_refused_key_is_a_code_of_its_own(shell: Shell) -> None:
    shell.sandbox.add_faults([{"on": "run", "do": "drop_after"}, {"on": "submit", "do": "status:401"}])
    ran = shell.falbatch("call", SCHNELL, "prompt=x", "--run")
    assert (ran.code, ran.err.count("It may have run")) == (5, 1)
    ran = shell.falbatch("call", SCHNELL, "prompt=x", "--json")
    assert (ran.code, json.loads(ran.err.splitlines()[-1])["error"]) == (4, "CredentialsError")
