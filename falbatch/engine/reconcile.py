"""Settling submits that got no answer, from fal's own request list, while the run goes on and at its end.

    unknown ─▶ look through the list ─▶ found: the job goes on with its request
                  ▲        │
                  └─ later ┘ not there: it may still run, or the list may lag; after its patience it stays unknown

Which request answers which submit is decided in `core/reconcile.py`; where fal calls back, its call decides. Nothing
here submits anything.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from falbatch.core.changes import RequestFound, ResultStored, Stuck
from falbatch.core.classify import Failure, is_account_trouble
from falbatch.core.events import FoundByCallback, Listener, Reconciled
from falbatch.core.reconcile import FIRST_LOOK_S, SKEW_S, Listed, LostSubmit, match, next_look_s, patience_s
from falbatch.core.record import OpenJob, RequestOnRecord
from falbatch.core.state import Event, IllegalTransition
from falbatch.errors import HttpError, ReplyError, TransportError, WireError
from falbatch.faultpoints import fault_point

if TYPE_CHECKING:
    from collections.abc import Iterable

    from falbatch.engine.ports import Clock, Queue, RequestList, Store
    from falbatch.engine.spending import Spending
    from falbatch.engine.wait import PollScheduler

PAGES_MOST: Final = 500
"""Pages of the list read at one look: the latest 50,000 requests of an endpoint."""

LAST_LOOK_S: Final = 30.0
"""When the work is done, what is still unknown is looked for once more, if the latest look is older than this."""


class Reconciler:
    """Looks for lost submits. `wait_s` tells when to `look` next; touched by one task."""

    def __init__(
        self,
        *,
        store: Store,
        requests: RequestList,
        queue: Queue,
        clock: Clock,
        spending: Spending,
        polls: PollScheduler,
        patience: float | None,
        listen: Listener,
        is_called_back: bool = False,
    ) -> None:
        """`is_called_back`: lost submits are worth waiting for also where fal lists nothing."""
        self._store = store
        self._requests = requests
        self._queue = queue
        self._clock = clock
        self._spending = spending
        self._polls = polls
        self._patience = patience
        """Seconds to look for each, None by how long such jobs take."""
        self._listen = listen
        self._is_called_back = is_called_back
        self._pause_s = FIRST_LOOK_S
        self._next_at_s: float | None = None
        self._since_s: dict[tuple[int, int], float] = {}
        """When each lost submit left, by job and attempt; monotonic."""
        self._looked_at_s: float | None = None
        self._noticed_at_s = 0.0
        self._has_looked_last = False
        self._not_named: set[str] = set()
        """Request ids named by errors that fal does not know."""
        self._is_refused = False
        self._refused: set[str] = set()
        """Endpoints whose requests fal does not list."""
        self._told: set[tuple[int, int]] = set()
        """Lost direct calls, by job and attempt, that are known to have ended without an output."""
        self._is_queued: dict[str, bool] = {}
        """Request ids that fal's queue was asked about: whether they are its own."""
        self._begin()

    def _begin(self) -> None:
        """Those of earlier runs: looked for at once, and for as long as their patience is not over yet."""
        now_s, unix_s = self._clock.now_s(), self._clock.unix_s()
        for submit in self._open():
            self._since_s[submit.job_id, submit.attempt] = now_s - max(0.0, unix_s - submit.left_at)
            self._next_at_s = now_s

    def noticed(self) -> None:
        """A submit got no answer just now."""
        if self._is_refused and not self._is_called_back:
            return
        self._pause_s = FIRST_LOOK_S
        self._noticed_at_s = self._clock.now_s()
        soon_s = self._noticed_at_s + (FIRST_LOOK_S if self._patience is None else min(FIRST_LOOK_S, self._patience))
        self._next_at_s = soon_s if self._next_at_s is None else min(self._next_at_s, soon_s)

    def has_a_last_look(self) -> bool:
        """Called when all else is done: True, once, when something is left that was not looked for lately."""
        now_s = self._clock.now_s()
        is_late = self._looked_at_s is not None and now_s - self._looked_at_s > LAST_LOOK_S
        left = {submit.endpoint for submit in self._open() if submit.is_unknown}
        if self._is_refused or not is_late or self._has_looked_last or left <= self._refused:
            return False
        self._has_looked_last = True  # a look may take longer than LAST_LOOK_S, where fal does not answer
        self._next_at_s = now_s
        return True

    def _until_s(self) -> float:
        """When the last patience is over, by what is known now of how long such jobs take."""
        until_s = float("-inf")
        for submit in self._open():
            since_s = self._since_s.setdefault((submit.job_id, submit.attempt), self._noticed_at_s)
            patience = self._patience
            if patience is None:
                patience = patience_s(self._polls.usual_s(submit.endpoint))
            until_s = max(until_s, since_s + patience)
        return until_s

    def wait_s(self) -> float | None:
        """Seconds until the next look; None when there is nothing to look for, or no patience left."""
        return None if self._next_at_s is None else max(0.0, self._next_at_s - self._clock.now_s())

    async def look(self) -> list[OpenJob]:
        """Look once. The jobs whose requests were found: they are `submitted` now, and nobody follows them yet."""
        began_s = self._looked_at_s = self._clock.now_s()
        found: list[OpenJob] = []
        trouble = ""
        try:
            await self._look_for_named(found)
        except WireError as error:
            trouble = self._trouble(error, None)
        for endpoint, since in self._endpoints().items():
            if self._is_refused or endpoint in self._refused:
                continue
            try:
                listed = await self._list(endpoint, since)
                fault_point("reconcile.listed")
                await self._adopt(endpoint, listed, found)
            except WireError as error:
                trouble = self._trouble(error, endpoint)
        left = {submit.job_id for submit in self._open() if submit.is_unknown}
        until_s = self._until_s()
        is_refused = self._is_refused or set(self._endpoints()) <= self._refused
        self._schedule(began_s, until_s, is_over=is_refused and not self._is_called_back)
        if is_refused and self._is_called_back and not (found or trouble):
            return found  # nobody was asked: only a call can tell
        left_s = 0.0 if self._next_at_s is None else max(0.0, until_s - self._clock.now_s())
        self._listen(Reconciled(len(found), len(left), left_s, trouble, frozenset(job.job_id for job in found)))
        return found

    def _trouble(self, error: WireError, endpoint: str | None) -> str:
        """Why nothing can be learned now. A key without the right, or no such API or endpoint: asking again in this run
        would not change that."""
        has_no_platform = isinstance(error, TransportError) and error.kind == "no_platform"
        if is_account_trouble(error) or has_no_platform:
            self._is_refused = True
        elif endpoint is not None and isinstance(error, HttpError) and error.status == 404:
            self._refused.add(endpoint)
        return str(error)

    def _schedule(self, began_s: float, until_s: float, *, is_over: bool) -> None:
        # The look that ends the patience is the one that began after it.
        if is_over or began_s >= until_s:
            self._next_at_s = None
            return
        now_s = self._clock.now_s()
        wait_s, self._pause_s = next_look_s(self._pause_s, until_s - now_s)
        self._next_at_s = now_s + wait_s

    def _open(self) -> list[LostSubmit]:
        return [submit for submit in self._store.lost_submits() if submit.is_open]

    def _endpoints(self) -> dict[str, float]:
        """Where to look, and since when (Unix seconds)."""
        since: defaultdict[str, float] = defaultdict(lambda: float("inf"))
        for submit in self._open():
            since[submit.endpoint] = min(since[submit.endpoint], submit.left_at - SKEW_S)
        return dict(since)

    async def _look_for_named(self, found: list[OpenJob]) -> None:
        """Errors that named a request: fal's queue knows whether it exists."""
        for submit in self._open():
            if submit.named_id in {"", *self._not_named} or self._store.known_requests([submit.named_id]):
                continue
            if submit.mode.is_direct:
                continue  # the queue knows nothing of it; the list may
            request = RequestOnRecord(submit.named_id, submit.endpoint, "", "", "", submit.left_at)
            try:
                await self._queue.status(request)
            except HttpError as error:
                if is_account_trouble(error):
                    raise
                if error.status == 404:
                    self._not_named.add(submit.named_id)
                continue  # not there, or not told: the list may know it
            await self._record({submit: Listed(submit.named_id, submit.input_json, submit.left_at)}, found)

    async def adopt(self, job_id: int, attempt: int, request_id: str) -> list[OpenJob]:
        """fal called about a lost submit. Its job, if it goes on with that request; it is `submitted` now."""
        found: list[OpenJob] = []
        is_adopted = False
        while not is_adopted:
            lost = [one for one in self._store.lost_submits() if (one.job_id, one.attempt) == (job_id, attempt)]
            if not lost or self._store.known_requests([request_id]):
                return found
            # Once more only where the job was submitted again in that very moment: then it is as good as ended.
            is_adopted = await self._record({lost[0]: Listed(request_id, lost[0].input_json, lost[0].left_at)}, found)
        self._listen(FoundByCallback(job_id))
        return found

    async def _list(self, endpoint: str, since: float) -> list[Listed]:
        """The listed requests that have an input of a lost submit; the others may be thousands, and large."""
        lost = [submit for submit in self._store.lost_submits() if submit.endpoint == endpoint]
        wanted = {submit.sha256 for submit in lost}
        named = {submit.named_id for submit in lost if submit.mode.is_direct}
        listed: list[Listed] = []
        cursor: str | None = None
        for _ in range(PAGES_MOST):
            page = await self._requests.page(endpoint, since=since, cursor=cursor)
            listed += [one for one in page.items if one.sha256 in wanted or one.request_id in named]
            cursor = page.next_cursor
            if cursor is None:
                break
        return listed

    async def _adopt(self, endpoint: str, listed: list[Listed], found: list[OpenJob]) -> None:
        """Match what was listed with what is lost *now*: a submit whose answer came while the list was read knows its
        request, and one of the same input that is still under way may be the very one that is listed."""
        await self._tell_apart(endpoint, listed)
        lost = [submit for submit in self._store.lost_submits() if submit.endpoint == endpoint]
        busy = {submit.input_json for submit in lost if self._store.is_under_way(endpoint, submit.input_json)}
        known = self._store.known_requests([request.request_id for request in listed])
        free = [one for one in lost if one.input_json not in busy]
        shared = _shared(lost)
        doubtful = [one for one in listed if one.sha256 in shared]
        clear = [one for one in listed if one.sha256 not in shared]
        ours = [one for one in doubtful if self._is_queued.get(one.request_id) is True]
        queued = match([one for one in free if not one.mode.is_direct], clear + ours, known)
        await self._record(queued, found)
        known |= {request.request_id for request in queued.values()}
        others = [one for one in doubtful if self._is_queued.get(one.request_id) is False]
        await self._adopt_direct([one for one in free if one.mode.is_direct], clear + others, known, found)

    async def _tell_apart(self, endpoint: str, listed: list[Listed]) -> None:
        """The list does not say which of its requests came by the queue. Where a queued submit and a direct call of the
        same input are lost, the queue is asked, since it knows its own; what it does not answer now waits."""
        shared = _shared([submit for submit in self._store.lost_submits() if submit.endpoint == endpoint])
        doubtful = [one for one in listed if one.sha256 in shared and one.request_id not in self._is_queued]
        known = self._store.known_requests([one.request_id for one in doubtful])
        for one in doubtful:
            if one.request_id in known:
                continue
            try:
                await self._queue.status(RequestOnRecord(one.request_id, endpoint, "", "", "", one.sent_at or 0.0))
            except HttpError as error:
                if is_account_trouble(error):
                    raise
                if error.status == 404:
                    self._is_queued[one.request_id] = False
            except (TransportError, ReplyError):
                continue
            else:
                self._is_queued[one.request_id] = True

    async def _adopt_direct(
        self, lost: list[LostSubmit], listed: list[Listed], known: set[str], found: list[OpenJob]
    ) -> None:
        """A direct call's answer cannot be asked for: it is adopted only with the output that the list has."""
        whole = [request for request in listed if request.output is not None and request.request_id not in known]
        by_id = {request.request_id: request for request in whole}
        matched = {one: by_id.pop(one.named_id) for one in lost if one.named_id in by_id}
        matched |= match([one for one in lost if one not in matched], by_id.values(), known)
        await self._record(matched, found)
        bare = match(
            [one for one in lost if one not in matched],
            [request for request in listed if request.output is None],
            known,
        )
        await self._say_why({submit: request for submit, request in bare.items() if submit.is_unknown})

    async def _say_why(self, bare: dict[LostSubmit, Listed]) -> None:
        """These ended at fal, and nothing but their answer would do."""
        news = {submit: one for submit, one in bare.items() if (submit.job_id, submit.attempt) not in self._told}
        self._told |= {(submit.job_id, submit.attempt) for submit in news}
        at = self._clock.unix_s()
        await self._store.record(
            *(
                Stuck(
                    submit.job_id,
                    at,
                    Failure("no_answer", f"fal lists its request {request.request_id}, without an output"),
                )
                for submit, request in news.items()
            )
        )

    async def _record(self, matched: dict[LostSubmit, Listed], found: list[OpenJob]) -> bool:
        """False when one of the jobs was submitted again in this very moment: nothing was recorded."""
        if not matched:
            return True
        at = self._clock.unix_s()
        followed: dict[int, LostSubmit] = {}
        # As it is now: another submit of the same job may have been found since.
        still_open = {(submit.job_id, submit.attempt) for submit in self._open()}
        adopted: list[RequestFound | ResultStored] = []
        for submit, request in matched.items():
            sent_at = submit.left_at if request.sent_at is None else request.sent_at
            is_followed = (submit.job_id, submit.attempt) in still_open and submit.job_id not in followed
            if is_followed:
                followed[submit.job_id] = submit
            adopted.append(
                RequestFound(
                    submit.job_id,
                    submit.attempt,
                    at,
                    request.request_id,
                    sent_at,
                    event=Event.FOUND if is_followed else None,
                    cost=submit.reserved,
                )
            )
            if is_followed and submit.mode.is_direct:
                adopted.append(_result_of(submit, request, at))
        try:
            await self._store.record(*adopted)
        except IllegalTransition:
            return False  # the next look sees them as they are then
        for submit in matched:
            # A direct call has ended with its adoption: what was reserved for it is spent.
            is_followed = followed.get(submit.job_id) == submit and not submit.mode.is_direct
            self._spending.find(submit.reserved, is_followed=is_followed)
        found += [self._store.job(job_id) for job_id in followed]
        return True


def _shared(lost: Iterable[LostSubmit]) -> set[bytes]:
    """The hashes of inputs that both a queued submit and a direct call were lost with."""
    hashes: tuple[set[bytes], set[bytes]] = (set(), set())
    for submit in lost:
        hashes[submit.mode.is_direct].add(submit.sha256)
    return hashes[0] & hashes[1]


def _result_of(submit: LostSubmit, request: Listed, at: float) -> ResultStored:
    """The answer of a lost direct call as fal's list has it. It does not tell the units, so the cost is what was
    expected; None where no price is known."""
    return ResultStored(
        submit.job_id,
        request.request_id,
        at,
        body=request.output or b"null",
        content_type="application/json",
        cost=submit.reserved or None,
    )
