"""Faults on demand: what a rule is, and which rule meets a call. No effects; carrying one out is `misbehave`.

A rule's draws are a function of the seed, the rule and what it met, so the same scenario gives the same faults.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox.ids import chance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Where(StrEnum):
    """The calls that a rule can meet."""

    SUBMIT = "submit"
    STATUS = "status"
    STATUS_STREAM = "status_stream"
    RESULT = "result"
    CANCEL = "cancel"
    RUN = "run"
    STREAM = "stream"
    REALTIME = "realtime"
    """A WebSocket's handshake; what a rule does to replies holds for all answers on that connection."""
    FILE = "file"
    UPLOAD = "upload"
    """Any call of an upload; `endpoint` then is its step: token, initiate, file, create, part/1 and on, complete."""
    PLATFORM = "platform"
    """Any call to the platform API; `endpoint` then is the ids that it names, joined by commas."""
    OPENAPI = "openapi"
    """A call for an endpoint's schema."""
    WEBHOOK = "webhook"
    """One attempt to deliver a webhook: the sandbox calls. A rule about replies is then about the receiver's."""


class Do(StrEnum):
    """What a rule does; what follows the colon in the rule's text is in brackets."""

    STATUS = "status"
    """[HTTP code] That reply instead of the true one; nothing is accepted unless the rule says `accepted`."""
    DROP_BEFORE = "drop_before"
    """The connection is reset before anything is done."""
    DROP_AFTER = "drop_after"
    """The call is carried out, then the connection is reset; a file is reset in the middle of its body."""
    DELAY = "delay"
    """[seconds] The call is carried out, its reply comes later."""
    HANG = "hang"
    """The call is carried out, its reply never comes."""
    TRUNCATE = "truncate"
    """Half the body, under the length of the whole, or under its own with `quiet`; one event of a stream."""
    CORRUPT = "corrupt"
    """A body of the right length and wrong content: garbled bytes, malformed JSON."""
    WRONG_TYPE = "wrong_type"
    """An HTML page under the true status and content type."""
    REDIRECT = "redirect"
    """[URL] A 307 to that place; nothing is done."""
    REQUEUE = "requeue"
    """The running request goes back to IN_QUEUE and runs again; meets only calls on running requests."""
    FAIL = "fail"
    """[type] The execution ends in that failure. Decided when the request is accepted."""
    NSFW = "nsfw"
    """The pictures of the result are black, and `has_nsfw_concepts` says why; billed like any other."""
    BLACK = "black"
    """The same without a word."""
    FEWER = "fewer"
    """One picture less than was asked for; billed as if it were there."""
    ERROR_IN_RESULT = "error_in_result"
    """A success with an `error` beside its other members; billed."""
    EMPTY = "empty"
    """A success without anything in it: {}; billed."""
    LOCK = "lock"
    """The caller's account is locked, then the call is carried out."""
    LATE = "late"
    """[seconds] For so long after completion the result is still "in progress", the file still 404."""
    NAMES = "names"
    """Files get a `file_name` that is a trap, one of `hostile.HOSTILE_NAMES` in turn by request; the URL stays."""
    FOREIGN = "foreign"
    """[URL] The submit's status, response and cancel URLs lead there, under their own paths."""
    FOREIGN_FILES = "foreign_files"
    """[URL, of any scheme] The URL of each file in the result is that one."""
    LINK = "link"
    """[URL] The result has one more member, `more_info`, that is a bare link: no file, and perhaps dead."""
    ENDLESS = "endless"
    """A 200 of unknown length that begins well and goes on as fast as it is read, up to 512 MiB."""
    DRIP = "drip"
    """[seconds] The true body, a byte at a time with so long between them; the headers come with the first."""
    HUGE = "huge"
    """[megabytes of 2**20 bytes, at most 1024] The true JSON with one more member, a text that makes it that big."""
    DEEP = "deep"
    """The true JSON inside 100,000 arrays."""
    TYPES = "types"
    """JSON with the right keys and absurd values: null for ids, numbers for texts, lists for objects."""
    DUPLICATE = "duplicate"
    """A webhook is sent twice, the same to the byte."""
    NO_PAYLOAD = "no_payload"
    """A webhook without its payload: null, and `payload_error` beside it."""


ODDITIES: Final = frozenset({Do.NSFW, Do.BLACK, Do.FEWER, Do.ERROR_IN_RESULT, Do.EMPTY})
"""Ends that fal calls a success."""

ENDINGS: Final = ODDITIES | {Do.FAIL}
"""How an execution ends: decided when its request is accepted."""

_PLAIN_JSON: Final = frozenset({Where.SUBMIT, Where.STATUS, Where.RESULT, Where.RUN})
_RESULTS: Final = frozenset({Where.RESULT, Where.RUN})
DIRECT: Final = frozenset({Where.RUN, Where.STREAM, Where.REALTIME})
"""Calls that accept a request and answer it."""

ALLOWED: Final[Mapping[Do, frozenset[Where]]] = {do: frozenset(Where) for do in Do} | {
    Do.DELAY: frozenset(Where) - {Where.WEBHOOK},
    Do.REDIRECT: frozenset(Where) - {Where.WEBHOOK},
    Do.CORRUPT: frozenset(Where) - {Where.STATUS_STREAM},
    Do.WRONG_TYPE: frozenset(Where) - {Where.STATUS_STREAM},
    Do.REQUEUE: frozenset({Where.STATUS, Where.STATUS_STREAM}),
    **dict.fromkeys(ENDINGS, DIRECT | {Where.SUBMIT, Where.RESULT}),
    Do.LOCK: frozenset(Where) - {Where.FILE, Where.OPENAPI, Where.WEBHOOK},
    Do.LATE: frozenset({Where.RESULT, Where.FILE, Where.WEBHOOK}),
    Do.NAMES: _RESULTS,
    Do.FOREIGN: frozenset({Where.SUBMIT}),
    Do.FOREIGN_FILES: _RESULTS,
    Do.LINK: _RESULTS,
    Do.ENDLESS: _RESULTS | {Where.FILE},
    Do.DRIP: _PLAIN_JSON | {Where.FILE, Where.UPLOAD},
    Do.HUGE: _PLAIN_JSON | {Where.PLATFORM, Where.UPLOAD},
    Do.DEEP: _PLAIN_JSON | {Where.PLATFORM, Where.UPLOAD, Where.WEBHOOK},
    Do.TYPES: _PLAIN_JSON | {Where.PLATFORM, Where.UPLOAD, Where.WEBHOOK},
    Do.DUPLICATE: frozenset({Where.WEBHOOK}),
    Do.NO_PAYLOAD: frozenset({Where.WEBHOOK}),
}
"""Which calls each fault makes sense for."""


class By(StrEnum):
    """What a rule's chance is drawn for."""

    CALL = "call"
    """Each call."""
    INPUT = "input"
    """Each input: the same one fares the same each time, as with fal's safety checker, which goes by what is seen."""


class Once(StrEnum):
    """What a rule hits at most once."""

    PATH = "path"
    """The same URL path."""
    INPUT = "input"
    """The same endpoint and body."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One fault rule, as `rules.parse_rule` made it."""

    number: int
    """0-based place among all rules ever added; part of its draws."""
    source: Mapping[str, Any]
    """The rule as given, to be shown and stored."""
    where: Where
    do: Do
    amount: float = 0.0
    """HTTP code, seconds, or megabytes."""
    word: str = ""
    """URL, or failure type."""
    p: float = 1.0
    """Chance per match; with `once` per path or input, the same one at each try."""
    nth: int | None = None
    """Only this match, 1-based; None for all."""
    times: int | None = None
    """At most so many hits; None for no bound."""
    endpoint: str = "*"
    """fnmatch pattern over the full endpoint id."""
    once: Once | None = None
    by: By = By.CALL
    seeds: tuple[int, ...] = ()
    """For ends: only inputs with one of these seeds; empty for all."""
    retry_after: float | None = None
    """Seconds, sent as Retry-After."""
    body: Any = None
    """Instead of the body that a status would carry: text, or JSON."""
    nginx: bool = False
    """The page of the ingress: HTML, no request id (fal-protocol §8.1)."""
    accepted: bool = False
    """For `status`: the call is carried out all the same."""
    quiet: bool = False
    """For `truncate`: the Content-Length is that of the short body."""


@dataclass(frozen=True, slots=True)
class Target:
    """A call, as rules see it."""

    where: Where
    endpoint: str
    path: str
    input_key: str = ""
    """A hash of the body; empty without one."""
    seed: int | None = None
    """Of the input, where it has one."""
    is_running: bool = False
    """The request called about is IN_PROGRESS."""
    since_end_s: float | None = None
    """Seconds since the request called about completed; None before."""


@dataclass(slots=True)
class _Counted:
    """A rule with what became of it."""

    rule: Rule
    seen: int = 0
    fired: int = 0
    hits: set[str] = field(default_factory=set)
    """What `once` keeps from being hit again."""


class FaultBook:
    """The rules in force, and their counters. Earlier rules win; each counts every call that it could meet."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._entries: list[_Counted] = []
        self.next_number = 0
        self.changes = 0
        """Grows whenever there is something new to store."""

    def add(self, rules: Iterable[Rule]) -> None:
        """Put `rules` behind those in force."""
        for rule in rules:
            self._entries.append(_Counted(rule))
            self.next_number = max(self.next_number, rule.number + 1)
        self.changes += 1

    def clear(self) -> None:
        """Forget all rules and counters."""
        self._entries.clear()
        self.changes += 1

    def meet(self, target: Target) -> Rule | None:
        """The rule that hits this call's way over the wire, or None; rules about ends are not asked."""
        return self._pick(target, [e for e in self._entries if e.rule.do not in ENDINGS])

    def ending_for(
        self, endpoint: str, path: str, input_key: str, seed: object, where: Where = Where.SUBMIT
    ) -> str | None:
        """How a request accepted now, by a call of that kind, will end: a failure's name, an oddity's, or None."""
        entries = [e for e in self._entries if e.rule.do in ENDINGS]
        known = seed if isinstance(seed, int) and not isinstance(seed, bool) else None
        rule = self._pick(Target(where, endpoint, path, input_key, known), entries)
        return None if rule is None else rule.word if rule.do is Do.FAIL else rule.do.value

    def snapshot(self) -> list[dict[str, Any]]:
        """Rules with their counters, as `GET /sandbox/faults` shows them and the store keeps them."""
        return [
            {**entry.rule.source, "number": entry.rule.number, "seen": entry.seen, "fired": entry.fired}
            | ({"hits": sorted(entry.hits)} if entry.hits else {})
            for entry in self._entries
        ]

    def resume(self, rule: Rule, seen: int, fired: int, hits: Iterable[str]) -> None:
        """Put a rule back with the counters that an earlier process had reached."""
        self._entries.append(_Counted(rule, seen, fired, set(hits)))
        self.next_number = max(self.next_number, rule.number + 1)

    def _pick(self, target: Target, entries: list[_Counted]) -> Rule | None:
        hit: Rule | None = None
        for entry in entries:
            if not applies(entry.rule, target):
                continue
            entry.seen += 1
            self.changes += 1
            if hit is None and self._fires(entry, _once_key(entry.rule, target), target.input_key):
                entry.fired += 1
                hit = entry.rule
        return hit

    def _fires(self, entry: _Counted, once_key: str | None, input_key: str) -> bool:
        rule = entry.rule
        if rule.times is not None and entry.fired >= rule.times:
            return False
        if rule.nth is not None and entry.seen != rule.nth:
            return False
        if once_key is not None and once_key in entry.hits:
            return False
        place = input_key if rule.by is By.INPUT else entry.seen if once_key is None else once_key
        if rule.p < 1 and chance(self._seed, "fault", rule.number, place) >= rule.p:
            return False
        if once_key is not None:
            entry.hits.add(once_key)
        return True


def applies(rule: Rule, target: Target) -> bool:
    """Whether `rule` could meet this call at all, chance and counters aside."""
    # How a result will be is decided when its request is accepted.
    where = Where.SUBMIT if rule.do in ENDINGS and rule.where is Where.RESULT else rule.where
    if where is not target.where or not fnmatchcase(target.endpoint, rule.endpoint):
        return False
    if rule.seeds and target.seed not in rule.seeds:
        return False
    match rule.do:
        case Do.REQUEUE:
            return target.is_running
        case Do.LATE:
            return target.since_end_s is not None and target.since_end_s < rule.amount
        case _:
            return True


def _once_key(rule: Rule, target: Target) -> str | None:
    match rule.once:
        case None:
            return None
        case Once.PATH:
            return target.path
        case Once.INPUT:
            return f"{target.endpoint} {target.input_key}"
