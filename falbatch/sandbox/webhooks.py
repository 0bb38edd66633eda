"""Webhooks: every request that was sent with `fal_webhook` is told of when it has ended (fal-protocol §4).

    COMPLETED ─▶ on disk ─▶ attempt ─▶ 2xx: acknowledged
                              ▲  ├───▶ 3xx: failed
                              │  └───▶ 4xx, 5xx, no answer ─▶ pause, twice as long each time ─┐
                              └────────── unless ten retries are over, or the result is gone ─┘

Only this machine is told. fal does the reverse and drops private targets; here nothing leaves the machine. Delivery is
at least once: with a data folder, what was not acknowledged is sent again after a restart.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import aiohttp

from falbatch.sandbox.answers import answer
from falbatch.sandbox.faults import Do, Rule, Target, Where
from falbatch.sandbox.hostile import mistreat
from falbatch.sandbox.ids import digest
from falbatch.sandbox.misbehave import spoil
from falbatch.sandbox.replies import JSON_TYPE, Reply, dumps
from falbatch.sandbox.serve import is_loopback
from falbatch.sandbox.states import Status
from falbatch.sandbox.webhook_keys import key_set, signed, signing_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from falbatch.sandbox.requests import Request
    from falbatch.sandbox.world import World

MAX_RETRIES: Final = 10
FIRST_PAUSE_S: Final = 7.0
"""Before the first retry, before the speed factor; doubled each time, ten retries take two hours (§4.3)."""
MIN_PAUSE_S: Final = 0.02
"""However fast the sandbox is: a receiver in trouble is not hammered."""
MAX_AT_ONCE: Final = 64
"""Attempts under way, of all accounts."""

_TARGET: Final = re.compile(
    r"https?://(?:\[([0-9a-f:]+)\]|([a-z0-9.-]+))(?::[0-9]{1,5})?(?:[/?][!-\[\]-~]*)?", re.IGNORECASE
)
"""No userinfo, whitespace or backslash: two parsers must not see two hosts."""
_FACT: Final = "webhook "
"""What the names of our facts in the store begin with; the request id follows."""
_ROTATIONS: Final = "webhook_rotations"


class State(StrEnum):
    """Where a delivery is."""

    WAITING = "waiting"
    """Not acknowledged yet."""
    ACKNOWLEDGED = "acknowledged"
    """The receiver answered 2xx."""
    FAILED = "failed"
    """A 3xx, the last retry without success, or the result has expired."""
    REFUSED = "refused"
    """The URL is none, or not on this machine."""


class Failure(StrEnum):
    """An attempt without an answer."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    """Refused, reset, or no HTTP."""


@dataclass(slots=True)
class Delivery:
    """What became of one request's webhook."""

    request_id: str
    url: str
    state: State = State.WAITING
    attempts: list[dict[str, Any]] = field(default_factory=list)
    """`at` (Unix seconds) and `outcome`: the receiver's status, or a Failure."""

    def fact(self) -> dict[str, Any]:
        """What the store keeps."""
        return {"state": self.state, "attempts": list(self.attempts)}

    def page(self) -> dict[str, Any]:
        """What `GET /sandbox/webhooks` shows."""
        return {"request_id": self.request_id, "url": self.url, **self.fact()}


class Webhooks:
    """All deliveries of one sandbox. Belongs to its event loop."""

    def __init__(self, world: World, wake: Callable[[], None]) -> None:
        """`wake` has `take_changed` asked soon."""
        self._world = world
        self._wake = wake
        self.scheme = "http"
        """Of the URLs in payloads; their host is the one that the submitter used."""
        self._rotations = 0
        self._deliveries: dict[str, Delivery] = {}
        self._open: set[str] = set()
        """Ids of requests that will be told of and have not ended."""
        self._recalled: dict[str, Mapping[str, Any]] = {}
        self._unsaved: set[str] = set()
        """Ids of requests whose deliveries changed since the store was told."""
        self._rotations_saved = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._places = asyncio.Semaphore(MAX_AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    def recall(self, facts: Mapping[str, Any]) -> None:
        """Take in what an earlier process with the same folder knew, before any request is noted."""
        self._rotations = self._rotations_saved = facts.get(_ROTATIONS, 0)
        self._recalled = {name[len(_FACT) :]: fact for name, fact in facts.items() if name.startswith(_FACT)}

    def noted(self, request: Request) -> None:
        """`request` is new, has changed, or is known again. May be said twice."""
        url = request.query.get("fal_webhook")
        if not url or request.is_direct:
            return
        if request.status is not Status.COMPLETED:
            self._open.add(request.id)
            self._watch()
        elif request.id not in self._deliveries:
            self._open.discard(request.id)
            self._begin(request, url)

    def rotate(self) -> None:
        """Sign with a new key from now on."""
        self._rotations += 1
        self._wake()

    def key_set(self) -> dict[str, Any]:
        """The JWKS page."""
        return key_set(self._world.behaviour.seed, self._rotations)

    def page(self) -> dict[str, Any]:
        """Every delivery with its attempts, in the order in which the requests ended."""
        return {"rotations": self._rotations, "deliveries": [one.page() for one in self._deliveries.values()]}

    def take_changed(self) -> dict[str, Any]:
        """Facts, by name, that changed since they were last asked for."""
        unsaved, self._unsaved = self._unsaved, set()
        changed: dict[str, Any] = {_FACT + id_: self._deliveries[id_].fact() for id_ in unsaved}
        if self._rotations != self._rotations_saved:
            changed[_ROTATIONS] = self._rotations_saved = self._rotations
        return changed

    def reset(self) -> None:
        """Forget all deliveries; the key stays. The store keeps facts of what is forgotten: their ids never return."""
        for task in self._tasks:
            task.cancel()
        self._deliveries.clear()
        self._unsaved.clear()
        self._open.clear()
        self._recalled = {}

    async def close(self) -> None:
        """Stop delivering; what is open goes on after a restart."""
        tasks = [*self._tasks, *([self._watcher] if self._watcher else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _watch(self) -> None:
        """Have time caught up with while somebody is to be told: nobody else may be looking."""
        self._woken.set()
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._catch_up())

    async def _catch_up(self) -> None:
        while self._open:
            self._woken.clear()
            now = self._world.catch_up()
            due = self._world.engine.next_alarm()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else due - now):
                    await self._woken.wait()

    def _begin(self, request: Request, url: str) -> None:
        delivery = self._deliveries[request.id] = Delivery(request.id, url)
        if known := self._recalled.pop(request.id, None):
            delivery.state, delivery.attempts = State(known["state"]), list(known["attempts"])
        if not is_on_this_machine(url):
            self._set(delivery, State.REFUSED)
        if delivery.state is State.WAITING:
            task = asyncio.create_task(self._deliver(request, delivery))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _deliver(self, request: Request, delivery: Delivery) -> None:
        with suppress(Exception):  # a failing disk is the submitter's trouble; what is told here is true all the same
            await self._world.settled()
        while delivery.state is State.WAITING:
            now = self._world.now()
            if self._world.find(request.id, now) is None:
                self._set(delivery, State.FAILED)
                return
            async with self._places:
                outcome = await self._attempt(request, delivery)
            delivery.attempts.append({"at": now, "outcome": outcome})
            self._set(delivery, state_after(outcome, len(delivery.attempts)))
            if delivery.state is State.WAITING:
                await asyncio.sleep(pause_s(len(delivery.attempts), self._world.behaviour.time_scale))

    async def _attempt(self, request: Request, delivery: Delivery) -> int | Failure:
        """Tell the receiver once, unless a fault rule meets it: then as the rule says."""
        target = Target(
            Where.WEBHOOK,
            request.endpoint,
            delivery.url.partition("?")[0],
            since_end_s=self._world.now() - (request.ended_at or 0.0),
        )
        rule = self._world.faults.meet(target)
        self._world.note_faults()
        if rule is None:
            return await self._send(request, delivery, None)
        match rule.do:
            case Do.STATUS:
                if rule.accepted:
                    await self._send(request, delivery, rule)
                return int(rule.amount)
            case Do.DROP_BEFORE:
                return Failure.CONNECTION
            case Do.LATE:
                await asyncio.sleep(max(0.0, (request.ended_at or 0.0) + rule.amount - self._world.now()))
        outcome = await self._send(request, delivery, rule)
        return {Do.DROP_AFTER: Failure.CONNECTION, Do.HANG: Failure.TIMEOUT}.get(rule.do, outcome)

    async def _send(self, request: Request, delivery: Delivery, rule: Rule | None) -> int | Failure:
        """POST the delivery. `rule` may spoil what is said before it is signed, or after."""
        origin = f"{self.scheme}://{request.headers.get('host', '')}"
        said = delivery_reply(request, await answer(self._world, request, origin), rule)
        key = signing_key(self._world.behaviour.seed, self._rotations)
        headers = signed(key, request.id, request.account, int(self._world.now()), said.body)
        body = said.body
        if rule is not None and rule.do in {Do.CORRUPT, Do.TRUNCATE}:
            spoiled = spoil(rule, said, request.ordinal, is_file=False)
            body = spoiled.body if isinstance(spoiled, Reply) else body
        outcome = await self._post(delivery, {**headers, "Content-Type": said.content_type}, body)
        if rule is not None and rule.do is Do.DUPLICATE:
            outcome = await self._post(delivery, {**headers, "Content-Type": said.content_type}, body)
        return outcome

    async def _post(self, delivery: Delivery, headers: Mapping[str, str], body: bytes) -> int | Failure:
        first_s, later_s = self._world.behaviour.scenario.webhook_timeout_s
        try:
            async with self._client().post(
                delivery.url,
                data=body,
                headers=headers,
                allow_redirects=False,
                ssl=False,  # a certificate for a loopback name proves nothing to anybody
                timeout=aiohttp.ClientTimeout(total=later_s if delivery.attempts else first_s),
            ) as reply:
                return reply.status
        except TimeoutError:
            return Failure.TIMEOUT
        except (aiohttp.ClientError, OSError, ValueError):
            return Failure.CONNECTION

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            # A connection for each: a POST into one that the receiver is just closing would fail for nothing.
            connector = aiohttp.TCPConnector(limit=MAX_AT_ONCE, force_close=True)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    def _set(self, delivery: Delivery, state: State) -> None:
        delivery.state = state
        self._unsaved.add(delivery.request_id)
        self._wake()


def is_on_this_machine(url: str) -> bool:
    """Whether `url` is one, and leads to a loopback address."""
    found = _TARGET.fullmatch(url)
    return found is not None and is_loopback((found[1] or found[2]).lower())


def state_after(outcome: int | Failure, attempts: int) -> State:
    """What the last of `attempts` makes of a delivery (§4.2)."""
    match outcome:
        case int() if 200 <= outcome < 300:
            return State.ACKNOWLEDGED
        case int() if 300 <= outcome < 400:
            return State.FAILED
        case _:
            return State.WAITING if attempts <= MAX_RETRIES else State.FAILED


def pause_s(attempts: int, time_scale: float) -> float:
    """Seconds to wait after so many attempts, at least one, before the next."""
    return max(MIN_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (attempts - 1) * time_scale)


def delivery_reply(request: Request, result: Reply, rule: Rule | None = None) -> Reply:
    """The body to be signed (§4.1): `result`, the answer of the result call, in fal's envelope.

    The payload is the result's very bytes, so that integers stay exact. `rule` may ask for a body that makes no
    sense, or for none.
    """
    head: dict[str, Any] = {"request_id": request.id, "gateway_request_id": gateway_id(request)}
    head["status"] = "OK" if result.status < 300 else "ERROR"
    if head["status"] == "ERROR":
        head["error"] = f"Invalid status code: {result.status}"
    payload = result.body
    if result.content_type != JSON_TYPE or (rule is not None and rule.do is Do.NO_PAYLOAD):
        payload, head["payload_error"] = b"null", "The response is not JSON; ask the queue for it."
    reply = Reply(200, dumps(head)[:-1] + b',"payload":' + payload + b"}")
    if rule is None:
        return reply
    if rule.do is Do.WRONG_TYPE:
        return replace(reply, body=b"<!doctype html><title>Sorry</title>", content_type="text/html")
    spoiled = mistreat(rule, reply, request.ordinal)
    return spoiled if isinstance(spoiled, Reply) else reply


def gateway_id(request: Request) -> str:
    """The last attempt's own id: the request's, unless it was retried (§4.1)."""
    if request.attempt <= 1:
        return request.id
    return str(UUID(bytes=digest("gateway", request.id, request.attempt), version=4))
