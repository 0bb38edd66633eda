"""The flags of the sandbox, for `python -m falbatch.sandbox` and `falbatch sandbox` alike. Cheap to import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from falbatch.sandbox.settings import DEFAULT_CONCURRENCY, DEFAULT_PORT, SandboxSettings

if TYPE_CHECKING:
    import argparse

DESCRIPTION = """\
Serve an emulator of fal.ai on this machine: a queue, real pictures, a billing ledger, and faults on demand.
The origin is printed on the first line of stdout once it answers; Ctrl-C stops it."""

EXAMPLES = """\
examples:
  %(prog)s
      on http://127.0.0.1:8787, any key of the form id:secret
  %(prog)s --port 0 --data .sandbox --seed 7
      on a free port, the same one next time; queue and ledger survive being killed
  %(prog)s --speed 20 --concurrency 2 --scenario storm.yaml
      twenty times as fast, two at a time, with the faults of storm.yaml

  %(prog)s --tls sandbox-tls
      on https://127.0.0.1:8787; tell clients SSL_CERT_FILE=sandbox-tls/ca.pem

exit codes: 0 stopped, 2 usage (a flag, the scenario, the port or a folder)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add every flag of the sandbox to `parser`."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="loopback address to serve on (default %(default)s)")
    add("--port", type=int, default=DEFAULT_PORT, help="port; 0 picks a free one (default %(default)s)")
    add("--data", type=Path, metavar="DIR", help="keep queue, ledger, fault counters and uploads in DIR")
    add("--seed", type=int, metavar="N", help="same seed: same ids, timings and faults (default: by chance)")
    add(
        "--concurrency",
        type=int,
        metavar="N",
        help=f"requests running at once per account (default {DEFAULT_CONCURRENCY})",
    )
    add("--speed", type=float, metavar="X", help="divide service times by X; 0 for none at all (default 1)")
    add("--scenario", type=Path, metavar="FILE", help="YAML file with durations, faults and more")
    add("--key", metavar="ID:SECRET", help="accept this key only (default: every id:secret is an account)")
    add("--tls", type=Path, metavar="DIR", help="serve https; DIR/ca.pem is what clients must trust (made if missing)")
    add("--stay-until-stdin-closes", action="store_true", help="also stop at the end of stdin")


def settings_from(namespace: argparse.Namespace) -> SandboxSettings:
    """What `add_arguments` parsed, as settings. Other attributes of `namespace` are ignored."""
    return SandboxSettings(
        host=namespace.host,
        port=namespace.port,
        data=namespace.data,
        seed=namespace.seed,
        concurrency=namespace.concurrency,
        speed=namespace.speed,
        scenario=namespace.scenario,
        key=namespace.key,
        tls=namespace.tls,
        stay_until_stdin_closes=namespace.stay_until_stdin_closes,
    )
