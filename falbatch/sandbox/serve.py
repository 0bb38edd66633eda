"""Starts a sandbox, says where it is, and stops it. Cheap to import: the server is loaded by `serve` alone."""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import os
import secrets
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from falbatch.errors import UsageError
from falbatch.sandbox.scenario import Scenario, load_scenario
from falbatch.sandbox.settings import Behaviour, SandboxSettings, behaviour

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from falbatch.sandbox.store import Store

__all__ = ["SandboxSettings", "serve"]

PACKAGES: Final = ("PIL", "av", "cryptography", "jsonschema", "trustme")
"""Of the extra `sandbox`, by the names they are imported under."""


def serve(settings: SandboxSettings) -> None:
    """Serve until SIGINT or SIGTERM, or the end of stdin where the settings say so. Blocks.

    The first line of stdout is the origin, written once the sandbox answers. Raises UsageError when a setting,
    the scenario, the port or a folder cannot be used, or Pillow, or for https trustme, is missing.
    """
    check(settings)
    scenario = load_scenario(settings.scenario) if settings.scenario else Scenario()
    context = _tls_context(settings)
    store = _open_store(settings.data)
    try:
        meta = store.meta() if store else {}
        listener = listen(settings.host, settings.port, meta.get("port", 0))
    except BaseException:
        if store:
            store.close()
        raise
    if store:
        store.commit([], [], {"port": listener.getsockname()[1]}, wipe=False)
    seed = _choose_seed(settings, scenario, meta.get("seed"))
    asyncio.run(_run(settings, behaviour(settings, scenario, seed), store, listener, context))


def check(settings: SandboxSettings) -> None:
    """Raise UsageError for what can be seen to be wrong without touching anything."""
    if not is_loopback(settings.host):
        raise UsageError(
            f"--host {settings.host}: the sandbox serves this machine only",
            advice="Use 127.0.0.1, ::1 or localhost.",
        )
    if settings.concurrency is not None and settings.concurrency < 1:
        raise UsageError(f"--concurrency {settings.concurrency}: at least 1 request must be able to run")
    if settings.speed is not None and not settings.speed >= 0:
        raise UsageError(f"--speed {settings.speed}: expected a number from 0 (0: no service time at all)")
    if settings.key is not None and (settings.key.count(":") != 1 or not all(settings.key.split(":"))):
        raise UsageError("--key: expected ID:SECRET")
    if settings.tls is not None and importlib.util.find_spec("trustme") is None:
        raise UsageError(
            "--tls makes certificates with trustme, which is not installed", advice="pip install 'falbatch[sandbox]'"
        )
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the sandbox needs packages that are not installed ({', '.join(missing)})",
            advice="pip install 'falbatch[sandbox]'",
        )


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine seen from itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int, recorded: int) -> socket.socket:
    """A listening socket on `port`; for 0 on the `recorded` one of an earlier start if it is free, else any."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    failure: Exception | None = None
    for candidate in [port] if port else [recorded, 0]:
        try:
            return socket.create_server((host, candidate), family=family, backlog=1024)
        except (OSError, OverflowError) as error:
            failure = error
    raise UsageError(
        f"cannot serve on {host}:{port}: {failure}", advice="Give --port another number, or 0 for any."
    ) from failure


async def _run(
    settings: SandboxSettings,
    how: Behaviour,
    store: Store | None,
    listener: socket.socket,
    context: ssl.SSLContext | None,
) -> None:
    from aiohttp import web

    from falbatch.sandbox.server import make_runner
    from falbatch.sandbox.world import World

    world = World(how, store)
    world.webhooks.scheme = "http" if context is None else "https"
    runner = make_runner(world)
    await runner.setup()
    try:
        await web.SockSite(runner, listener, backlog=1024, ssl_context=context).start()
        stop = _stop_event(settings.stay_until_stdin_closes)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        sys.stdout.write(f"{world.webhooks.scheme}://{host}:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        await stop.wait()
    finally:
        await runner.cleanup()
        await world.close()


def _stop_event(watches_stdin: bool) -> asyncio.Event:
    """An event that a signal sets, and the end of stdin where that is watched."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if watches_stdin:
        threading.Thread(target=_wait_for_eof, args=(loop, stop), daemon=True).start()
    return stop


def _wait_for_eof(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    # os.read, not sys.stdin: a daemon thread holding sys.stdin's lock makes the interpreter crash at exit.
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(stop.set)


def _open_store(folder: Path | None) -> Store | None:
    if folder is None:
        return None
    from falbatch.sandbox.store import Store

    return Store(folder)


def _tls_context(settings: SandboxSettings) -> ssl.SSLContext | None:
    if settings.tls is None:
        return None
    from falbatch.sandbox.tls import server_context

    return server_context(settings.tls, settings.host)


def _choose_seed(settings: SandboxSettings, scenario: Scenario, kept: int | None) -> int:
    given = (settings.seed, scenario.seed, kept)
    return next((seed for seed in given if seed is not None), secrets.randbits(63))
