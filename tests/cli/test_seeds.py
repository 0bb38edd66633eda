"""`seed: {derive: true}`: a batch that can be made again, and lost submits that are surely found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cli.conftest import states

if TYPE_CHECKING:
    from tests.cli.conftest import Shell

TWINS = """\
version: 1
name: small
endpoint: fal-ai/flux/schnell
repeat: 3
input: {prompt: "a kite", image_size: {width: 64, height: 64}, seed: {derive: true}}
output: {dir: out, name: kite}
"""


def seeds(shell: Shell) -> list[int]:
    return sorted(execution["input"]["seed"] for execution in shell.sandbox.ledger()["executions"])


def test_equal_jobs_are_paid_for_once_each_with_seeds_that_stay(shell: Shell) -> None:
    shell.write("small.yaml", TWINS)
    assert shell.falbatch("run", "small.yaml").code == 0
    first = seeds(shell)
    assert len(set(first)) == 3
    assert shell.falbatch("run", "small.yaml").code == 0
    assert seeds(shell) == first
    pictures = {path.name: path.read_bytes() for path in (shell.folder / "out").glob("kite*.jpg")}
    assert len(set(pictures.values())) == 3
    assert shell.falbatch("run", "small.yaml", "--output", "again").code == 0
    assert seeds(shell) == sorted(first * 2)
    assert {path.name: path.read_bytes() for path in (shell.folder / "again").glob("kite*.jpg")} == pictures


def test_an_edit_elsewhere_changes_no_seed(shell: Shell) -> None:
    shell.write("small.yaml", TWINS)
    shell.falbatch("run", "small.yaml")
    shell.write("small.yaml", TWINS.replace("repeat: 3", "repeat: 4").replace("name: kite", 'name: "k{{ replica }}"'))
    shell.falbatch("run", "small.yaml")
    assert len(seeds(shell)) == len(set(seeds(shell))) == 4


def test_a_lost_submit_among_equal_jobs_is_surely_found(shell: Shell) -> None:
    shell.write("small.yaml", TWINS)
    shell.sandbox.add_faults([{"on": "submit", "do": "drop_after", "nth": 2}])
    ran = shell.falbatch("run", "small.yaml")
    shell.sandbox.clear_faults()
    assert ran.code == 0, ran.out
    assert states(shell) == {"done": 3}
    assert len(seeds(shell)) == len(set(seeds(shell))) == 3
