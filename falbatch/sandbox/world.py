"""The state of one sandbox, put together: requests, accounts, faults, counters, and where they are kept.

Routes act on it; it knows nothing of HTTP. One event loop owns it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox import ids
from falbatch.sandbox.endpoints import profile_of, service_s
from falbatch.sandbox.engine import Engine
from falbatch.sandbox.faults import FaultBook
from falbatch.sandbox.gallery import Gallery
from falbatch.sandbox.journal import Journal, request_from
from falbatch.sandbox.requests import Request, Via, start_timeout_s
from falbatch.sandbox.rules import parse_rule, parse_rules
from falbatch.sandbox.stats import Stats
from falbatch.sandbox.storage import Storage
from falbatch.sandbox.verdict import decide
from falbatch.sandbox.webhooks import Webhooks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from falbatch.sandbox.settings import Behaviour
    from falbatch.sandbox.store import Store

REFUSED_RUN_S: Final = 0.05
"""Service time, before the speed factor, of an input that the schema refuses."""

_COUNTERS: Final = frozenset({"number", "seen", "fired", "hits"})
"""What a fault snapshot adds to the rule as it was given."""


class World:
    """Everything that one sandbox knows."""

    def __init__(self, behaviour: Behaviour, store: Store | None) -> None:
        self.behaviour = behaviour
        self.requests: dict[str, Request] = {}
        self.stats = Stats()
        self.gallery = Gallery()
        self.storage = Storage(behaviour.data, behaviour.seed)
        self.faults = FaultBook(behaviour.seed)
        self.locks: dict[str, bool] = {}
        """By account; what is not in it is as `all_locked` says."""
        self.all_locked = behaviour.scenario.locked
        self.webhooks = Webhooks(self, self._wake)
        self.engine = self._new_engine()
        self._next_ordinal = 0
        self._strays = 0
        self._latest = 0.0
        self._meta_kept: dict[str, Any] = {}
        self._faults_kept = -1
        self._journal = Journal(store, self._meta) if store else None
        if store is None:
            self._arm()
        else:
            self._resume(store)

    def now(self) -> float:
        """Unix seconds, never going back."""
        self._latest = max(self._latest, time.time())
        return self._latest

    def catch_up(self) -> float:
        """Let everything happen that was due; returns the time until which."""
        now = self.now()
        self.engine.advance(now)
        return now

    def is_locked(self, account: str) -> bool:
        """Whether the account is out of credit: it may look, but not submit."""
        return self.locks.get(account, self.all_locked)

    def lock(self, account: str | None, locked: bool) -> None:
        """Lock or unlock one account, or with None all of them."""
        if account is None:
            self.locks.clear()
            self.all_locked = locked
        else:
            self.locks[account] = locked
        self._wake()

    def find(self, request_id: str, now: float) -> Request | None:
        """The queue's request with that id, unless its result window is over (fal-protocol §3.6).

        A direct call is not found: its answer went over its own connection, or is lost (§5.1).
        """
        request = self.requests.get(request_id.lower())
        if request is None or request.is_direct:
            return None
        if request.ended_at is None:
            return request
        window = self.behaviour.window_s(stored=request.keeps_io)
        return request if now - request.ended_at <= window else None

    def accept(
        self,
        account: str,
        endpoint: str,
        raw: bytes,
        payload: Mapping[str, Any],
        query: Mapping[str, str],
        headers: Mapping[str, str],
        ending: str | None,
        via: Via = Via.QUEUE,
    ) -> Request:
        """Make a request of what a call sent and queue it; a direct one starts at once, its route saw room for it.

        `headers` in lower case, without the key; `ending` by a fault rule.
        """
        now = self.now()
        # What never waits has no deadline to start by and no place in a line.
        timeout_s = start_timeout_s(headers) if via is Via.QUEUE else None
        request = Request(
            id=ids.request_id(self.behaviour.seed, self._next_ordinal),
            ordinal=self._next_ordinal,
            account=account,
            endpoint=endpoint,
            query=query,
            headers=headers,
            raw=raw.strip() or b"{}",
            submitted_at=now,
            low=via is Via.QUEUE and headers.get("x-fal-queue-priority", "").lower() == "low",
            deadline=None if timeout_s is None else now + timeout_s,
            verdict=decide(profile_of(endpoint), payload, ending),
            via=via,
        )
        self._next_ordinal += 1
        self.requests[request.id] = request
        if request.is_direct:
            self.engine.begin(request, now)
        else:
            self.engine.submit(request, now)
        return request

    def knows(self, request: Request) -> bool:
        """False for a request from before a reset: nothing happens to it any more."""
        return self.requests.get(request.id) is request

    def leave(self, request: Request) -> None:
        """The caller of a direct call has gone."""
        if self.knows(request):
            self.engine.leave(request, self.catch_up())

    def stray_id(self) -> str:
        """A request id for a reply that refuses; nothing can be found under it."""
        self._strays += 1
        return ids.stray_id(self.behaviour.seed, self._strays)

    def add_faults(self, value: object) -> None:
        """Put posted rules in force. Raises FaultError."""
        self.faults.add(parse_rules(value, self.faults.next_number))
        self._wake()

    def clear_faults(self) -> None:
        """Forget all fault rules."""
        self.faults.clear()
        self._wake()

    def reset(self) -> None:
        """Back to the start: no requests, no posted faults or locks, the scenario's as new.

        Ordinals go on, so that no request id is ever handed out twice.
        """
        self.requests.clear()
        self.storage.reset()
        self.webhooks.reset()
        self.stats = Stats()
        self.locks.clear()
        self.all_locked = self.behaviour.scenario.locked
        self.engine = self._new_engine()
        self.faults = FaultBook(self.behaviour.seed)
        self._faults_kept = -1
        if self._journal:
            self._journal.wipe()
        self._arm()

    async def settled(self) -> None:
        """Wait until all that was accepted is on disk; at once when nothing is kept."""
        if self._journal:
            await self._journal.settled()

    async def close(self) -> None:
        """Write what is left."""
        await self.webhooks.close()
        self.gallery.close()
        self.storage.close()
        if self._journal:
            self._wake()
            await self._journal.close()

    def note_faults(self) -> None:
        """Have fault counters that changed written with the next commit."""
        if self.faults.changes != self._faults_kept:
            self._wake()

    def _new_engine(self) -> Engine:
        behaviour = self.behaviour
        stops = behaviour.scenario.cancel_running == "stop"
        return Engine(behaviour.concurrency, behaviour.time_scale, self._service_s, self._note, stops_running=stops)

    def _service_s(self, request: Request) -> float:
        scale = self.behaviour.time_scale
        if request.verdict.is_invalid or scale == 0:
            return REFUSED_RUN_S * scale
        profile = profile_of(request.endpoint)
        given = self.behaviour.scenario.duration_of(request.endpoint)
        median_s, spread = profile.median_s, profile.spread
        if given:
            median_s, spread = given.median_s, spread if given.spread is None else given.spread
        return scale * service_s(median_s, spread, self.behaviour.seed, request.ordinal, request.attempt)

    def _note(self, request: Request) -> None:
        self.webhooks.noted(request)
        if self._journal:
            self._journal.note(request)

    def _wake(self) -> None:
        if self._journal:
            self._journal.wake()

    def _arm(self) -> None:
        """Put the scenario's rules in force."""
        self.add_faults(list(self.behaviour.scenario.faults))

    def _resume(self, store: Store) -> None:
        """Go on where an earlier process with this folder stopped; a scenario's faults are armed only once."""
        meta = store.meta()
        self._next_ordinal = meta.get("next_ordinal", 0)
        if "locks" in meta:
            self.all_locked, self.locks = meta["locks"]["all"], meta["locks"]["by_account"]
        self.webhooks.recall(meta)
        self._restore([request_from(row) for row in store.rows()])
        for request in self.requests.values():
            self.webhooks.noted(request)
        scenario = [dict(rule) for rule in self.behaviour.scenario.faults]
        if meta.get("scenario", []) == scenario and "faults" in meta:
            for entry in meta["faults"]:
                source = {key: value for key, value in entry.items() if key not in _COUNTERS}
                rule = parse_rule(source, entry["number"])
                self.faults.resume(rule, entry["seen"], entry["fired"], entry.get("hits", ()))
        else:
            self._arm()
        self._wake()

    def _restore(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self.requests[request.id] = request
            self._next_ordinal = max(self._next_ordinal, request.ordinal + 1)
        now = self.now()
        self.engine.restore(self.requests.values(), now)
        for request in self.requests.values():
            if request.is_direct:
                # Its connection went down with the process that held it.
                self.engine.leave(request, now)

    def _meta(self) -> dict[str, Any]:
        """The small facts that changed since they were last asked for."""
        facts: dict[str, Any] = {
            "seed": self.behaviour.seed,
            "next_ordinal": self._next_ordinal,
            "locks": {"all": self.all_locked, "by_account": dict(self.locks)},
            "scenario": [dict(rule) for rule in self.behaviour.scenario.faults],
        }
        changed = {name: fact for name, fact in facts.items() if self._meta_kept.get(name) != fact}
        self._meta_kept |= changed
        if self.faults.changes != self._faults_kept:
            self._faults_kept = self.faults.changes
            changed["faults"] = self.faults.snapshot()
        return changed | self.webhooks.take_changed()
