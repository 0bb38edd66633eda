"""The requests of one endpoint that are waited for, in the order in which fal accepted them: when to ask about each.

    accepted ─▶ waits in fal's queue ─▶ works ─▶ ended
                counted in requests      counted in seconds, `core/schedule.py`

An account runs only so many requests at a time (fal-protocol §9.1). What is over that waits, and is asked about only
when its turn to work can have come. Where fal tells positions, each one says how many requests of ours had begun then,
also those in replies to submits: how many, and how fast. Where it does not (a capped account's requests may all show
0), each end that is found lets the next one begin. No request is asked about to learn that. Beliefs that are wrong show
at the first question, and are moved. Pure: moments come in as monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from falbatch.core.durations import Durations, learned_s
from falbatch.core.schedule import (
    COLD_FIRST_S,
    COLD_REST_S,
    COLD_SCOUTS,
    FIRST_SHARE,
    PAST_SHARE,
    STEP_MAX_S,
    cold_age_s,
    likely_age_s,
    next_age_s,
)

if TYPE_CHECKING:
    from falbatch.core.sketch import Profile

ENDS: Final = 128
"""Ends remembered per endpoint, for the rate at which they come."""

SEEN: Final = 64
SEEN_ENOUGH: Final = 4
SEEN_SPAN_S: Final = 1.0
"""Words of fal's on positions that are remembered, and from which on they are believed."""

ENDS_ENOUGH: Final = 4
"""Ends from which on there is a rate."""

LOOK_LEAST_S: Final = 0.05
LOOK_MOST_S: Final = 5.0
"""Shortest and longest pause before a waiting request is looked at again; no call is made for that."""

UNASKED_MAX_S: Final = 240.0
"""A request that is believed to wait is asked about after this time all the same: what is believed may be wrong, and a
result may be kept for six minutes only (fal-protocol §3.6)."""

ROOM_STEP: Final = 0.2
"""How far the room is believed to be larger after a request that waited was done when first asked about; smaller by
three tenths of it after one that was not. So wrong beliefs are left within some rounds."""

EARLY_SHARE: Final = 0.5
"""A question before this share of the early edge had other reasons than the schedule, and tells nothing that is new."""

STREAK_MOST: Final = 10
"""So many requests in a row that were done when first asked about, where three in ten are aimed at: the model became
faster."""

IN_TIME_SHARE: Final = 0.05
"""Only those count that were asked about at most this share of their age later than planned."""

STREAK_PULL: Final = 0.9
"""From then on each is learned to be shorter by a tenth more than the one before, until one is found not done."""


class Look(NamedTuple):
    """When to look at a request next; monotonic seconds."""

    due_s: float
    likely_s: float
    """When it will most likely have ended: of those that are due, the earliest goes first."""
    is_question: bool = True
    """False: what is known by then tells; fal is not asked."""


@dataclass(slots=True)
class Course:
    """How far one request is, as far as we know. Of the line that made it; touched by one task only."""

    accepted_s: float
    """Monotonic."""
    place: int
    """0-based, among all that ever came to the line."""
    is_ours: bool
    """False for a request of an earlier run: its age is known by the wall clock only, so nothing is learned."""
    began_s: float
    """When its work began, as far as we know; not before it was last seen in the queue."""
    begins_after: float | None = None
    """So many ends of the line come before its work; None: it works."""
    asked_s: float | None = None
    """When the latest question left that was answered "not yet"; None also after a stay in the queue."""
    looked_s: float = 0.0
    """When the latest question left."""
    position: int | None = None
    """Its place in the queue by fal's latest word, at `looked_s`."""
    was_queued: bool = False
    """It was seen, or believed, in the queue."""
    due_age_s: float | None = None
    """Age at which the first question was planned by a profile."""
    step_s: float = 0.0
    """From there to the second one."""
    is_scout: bool = False
    is_over: bool = False

    @property
    def age_asked_s(self) -> float:
        """Age of its work at the latest question, 0 before the first."""
        return 0.0 if self.asked_s is None else max(0.0, self.asked_s - self.began_s)


class _First(NamedTuple):
    """The first question about any request, by a profile: worked out once for all of them."""

    profile: Profile
    age_s: float
    step_s: float
    """To the second one."""
    likely_s: float

    @classmethod
    def by(cls, profile: Profile) -> _First:
        age_s = next_age_s(0.0, profile)
        return cls(profile, age_s, next_age_s(age_s, profile) - age_s, max(age_s, likely_age_s(0.0, profile)))


@dataclass(slots=True)
class Line:
    """The requests of one endpoint."""

    durations: Durations = field(default_factory=Durations)
    """Of the work alone."""
    stays: Durations = field(default_factory=Durations)
    """From submit to end, the queue included."""
    came: int = 0
    ended: int = 0
    """Those that ended, or that nobody waits for any more."""
    open: int = 0
    """Those that are waited for."""
    scouts: int = 0
    """Those that were asked about while nothing was known, and taught or will."""
    room: float | None = None
    """How many of ours work at a time, as far as was seen; None while none was seen waiting for another's end."""
    lead: float = 0.0
    """How many more have begun than fal's words on positions, carried on, would say."""
    drain: float | None = None
    """Places a second by which requests move up in fal's queue."""
    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=ENDS))
    """When the latest ended, as far as we know."""
    _seen: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=SEEN))
    """When, by fal's word, how many of the line had begun to work: a request's place less its position in the queue."""
    _first: _First | None = None
    _streak: int = 0
    """Requests in a row that were done when first asked about."""

    def enter(self, accepted_s: float, *, is_ours: bool, position: int | None = None) -> Course:
        """A request that fal accepted; `position`: its place in the queue by fal's word at that time."""
        course = Course(accepted_s, self.came, is_ours, accepted_s, looked_s=accepted_s)
        self.came += 1
        self.open += 1
        ahead = self._ahead(course)
        if position:
            self._queue(course, accepted_s, position)
        elif self.room is not None and ahead >= self.room:
            self._wait_for_ends(course, ahead - self.room + 1)
        return course

    def leave(self, course: Course, now_s: float) -> None:
        """Nobody waits for it any more: those behind it move up."""
        if not course.is_over:
            self.scouts -= course.is_scout
            self._end(course, now_s)

    def called(self, course: Course, now_s: float) -> None:
        """fal called: it has ended just now."""
        if course.is_ours and not course.is_over:
            self.stays.add(now_s - course.accepted_s, at_once=self.open)
            if not course.was_queued:
                self.durations.add(now_s - course.accepted_s, at_once=self._working())
        self.leave(course, now_s)

    def took(self, seconds: float) -> None:
        """A call that waited for its own answer took so long."""
        self.durations.add(seconds)
        self.stays.add(seconds)

    def look(self, course: Course, now_s: float) -> Look:
        """When to look at it next, by what is known now. A look that is due is carried out."""
        look, most_s = self._look(course, now_s), course.looked_s + UNASKED_MAX_S
        return look if look.due_s <= most_s else Look(most_s, most_s)

    def _look(self, course: Course, now_s: float) -> Look:
        if course.begins_after is not None:
            waits = self._until_it_begins(course, now_s)
            if waits is not None:
                return waits
        profile = self.durations.believed()
        if profile is None:
            return self._cold_look(course)
        began_s = course.began_s
        if course.asked_s is None:
            first = self._first
            if first is None or first.profile is not profile:
                first = self._first = _First.by(profile)
            course.due_age_s, course.step_s = first.age_s, first.step_s
            return Look(began_s + first.age_s, began_s + first.likely_s)
        age_s = course.age_asked_s
        next_s = next_age_s(age_s, profile)
        return Look(began_s + next_s, began_s + max(next_s, likely_age_s(age_s, profile)))

    def _until_it_begins(self, course: Course, now_s: float) -> Look | None:
        """A look at the time when its work should begin; None when it should have begun."""
        ahead, rate = self._before(course, now_s)
        if ahead > 0:
            safety_s = course.looked_s + UNASKED_MAX_S
            if now_s >= safety_s:
                return Look(now_s, now_s)
            wait_s = ahead / rate if rate else self._usual_s()
            nap_s = max(LOOK_LEAST_S, wait_s if wait_s < 4 * LOOK_LEAST_S else 0.75 * wait_s)
            due_s = min(safety_s, now_s + min(LOOK_MOST_S, nap_s))
            return Look(due_s, due_s, is_question=False)
        course.began_s = max(course.began_s, now_s + ahead / rate if rate else now_s)
        course.begins_after = None
        return None

    def _before(self, course: Course, now_s: float) -> tuple[float, float | None]:
        """How many things come before its work, and how many of them happen a second, where that is known: others that
        begin, where fal told positions lately; ends of ours, elsewhere."""
        seen = self._seen
        if len(seen) >= SEEN_ENOUGH and seen[-1][0] - seen[0][0] >= SEEN_SPAN_S:
            (first_s, first), (last_s, last) = seen[0], seen[-1]
            rate = (last - first) / (last_s - first_s)
            if rate > 0:  # words of a time at which nothing moved say nothing of what has ended since
                return course.place - last - self.lead - rate * (now_s - last_s), rate
        ahead = (course.begins_after or 0.0) - self.ended
        if len(self._ends) < ENDS_ENOUGH:
            return ahead, None
        return ahead, (len(self._ends) - 1) / max(self._ends[-1] - self._ends[0], 1e-3)

    def _usual_s(self) -> float:
        profile = self.durations.profile()
        return 1.0 if profile is None else profile.early

    def _cold_look(self, course: Course) -> Look:
        """Of an endpoint that little is known of: some are asked about in growing steps, the others learn from them."""
        if course.is_ours and not course.is_scout and self.scouts < COLD_SCOUTS:
            course.is_scout = True
            self.scouts += 1
        if course.is_scout or not course.is_ours:
            due_s = course.began_s + cold_age_s(course.age_asked_s, hunch=self.durations.profile())
        else:
            due_s = course.looked_s + COLD_REST_S
        return Look(due_s, due_s)

    def not_yet(self, course: Course, sent_s: float, *, is_queued: bool, position: int | None) -> None:
        """A question that left at `sent_s` was answered: it waits in the queue, or works."""
        if is_queued:
            self._queue(course, sent_s, position)
        else:
            if course.begins_after is not None:
                course.begins_after = None
                course.began_s = (max(course.began_s, course.looked_s) + sent_s) / 2
            elif course.was_queued and course.asked_s is None:
                self._move_beliefs(-ROOM_STEP * FIRST_SHARE)
            if self.room is not None:
                self.room = max(self.room, self._ahead(course) + 1.0)
            profile = self.durations.believed()
            if profile is None or sent_s - course.began_s > EARLY_SHARE * profile.early:
                course.asked_s = sent_s
        course.looked_s = sent_s

    def _queue(self, course: Course, at_s: float, position: int | None) -> None:
        """It was in the queue at `at_s`: its work begins later."""
        profile = self.durations.believed()
        first_s = COLD_FIRST_S if profile is None else next_age_s(0.0, profile)
        ahead = self._ahead(course)
        is_overdue = profile is not None and at_s - course.began_s >= first_s / 2
        if position and ahead > position:
            self._seen.append((at_s, course.place - position))
            if course.due_age_s is not None and course.was_queued:  # it was asked too early
                self.lead -= ROOM_STEP
            self.room = self.room or ahead - position
        elif is_overdue and ahead >= 1:
            self.room = ahead if self.room is None else min(self.room, ahead)
        moved = (course.position or 0) - (position or 0)
        if position and moved > 0 and at_s > course.looked_s:
            seen = moved / (at_s - course.looked_s)
            self.drain = seen if self.drain is None else (self.drain + seen) / 2
        waited_s = at_s - course.accepted_s
        course.position = position
        course.asked_s = course.due_age_s = None
        course.began_s = at_s
        if self.room is not None and ahead >= self.room:
            by_rank = ahead - self.room + 1
            self._wait_for_ends(course, min(by_rank, position + 1.0) if position else by_rank)
            return
        # Not one of ours that it waits for: others are before it, or fal looks for a runner.
        course.was_queued = True
        course.begins_after = None
        if position and self.drain:
            course.began_s += min(STEP_MAX_S, 0.8 * position / self.drain)
        else:
            course.began_s += min(STEP_MAX_S, max(0.0, PAST_SHARE * waited_s - first_s))

    def _wait_for_ends(self, course: Course, count: float) -> None:
        course.was_queued = True
        course.begins_after = self.ended + count

    def found(self, course: Course, sent_s: float, *, worked_s: float | None, is_taught: bool = True) -> None:
        """A question that left at `sent_s` was answered: done. `worked_s`: how long the model worked by fal's word;
        `is_taught`: False where its time of asking had other reasons than the schedule."""
        done_s, not_yet_s = max(0.0, sent_s - course.began_s), course.age_asked_s
        due_s, step_s = course.due_age_s, course.step_s
        was_waiting = course.begins_after is not None
        ended_s = sent_s if was_waiting else course.began_s + self._took_s(not_yet_s, done_s, worked_s)
        self._end(course, ended_s)
        if is_taught and course.is_ours:
            self.stays.add(sent_s - course.accepted_s, at_once=self.open)
        if was_waiting or not is_taught or not course.is_ours:
            self.scouts -= course.is_scout
            return
        if not course.is_scout and not self.durations.is_believed:
            return  # those that were not asked about from their beginning on: of them, the fast ones are found first
        if course.asked_s is not None:
            self._streak = 0
        elif due_s is not None and not course.was_queued and done_s <= due_s + IN_TIME_SHARE * due_s:
            self._count_streak()
        if course.asked_s is None and course.was_queued:
            self._move_beliefs(ROOM_STEP)
        taught_s = learned_s(not_yet_s, done_s, due_s=due_s, step_s=step_s, worked_s=worked_s)
        if self._streak > STREAK_MOST and not course.was_queued:
            taught_s = worked_s or done_s * STREAK_PULL ** (self._streak - STREAK_MOST)
        if taught_s is not None:
            self.durations.add(taught_s, at_once=self._working())

    def _move_beliefs(self, step: float) -> None:
        """Work begins so many requests earlier than it was believed."""
        self.lead += step
        if self.room is not None:
            self.room = max(1.0, self.room + step)

    def _took_s(self, not_yet_s: float, done_s: float, worked_s: float | None) -> float:
        """How long it worked, at a guess between two ages: by fal's word, else as long as half of all do."""
        profile = self.durations.believed()
        if not worked_s and profile is None:
            return (not_yet_s + done_s) / 2
        guess_s = worked_s or (profile.age(0.5) if profile else 0.0)
        return min(done_s, max(not_yet_s, guess_s))

    def _count_streak(self) -> None:
        self._streak += 1
        if self._streak == STREAK_MOST:
            self.durations.fade()

    def _end(self, course: Course, at_s: float) -> None:
        course.is_over = True
        self.open -= 1
        self.ended += 1
        self._ends.append(at_s)

    def _ahead(self, course: Course) -> float:
        """How many of ours came before it and have not ended, if they end in the order in which they came."""
        return max(0.0, float(course.place - self.ended))

    def _working(self) -> int:
        """How many work now, as far as we know."""
        return self.open if self.room is None else min(self.open, int(self.room))
