"""Nights of polling, replayed: few questions, soon after the end, within the rate, whatever model and account do.

The bounds have some air; `python -m tests.core.polling` prints what they are today.
"""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest

from falbatch.core.durations import ENOUGH
from falbatch.core.line import UNASKED_MAX_S, Course, Line
from falbatch.core.schedule import COLD_REST_S, COLD_SCOUTS
from tests.core.polling import CASES, Polling, log_normal, steady


@pytest.mark.parametrize(
    ("case", "calls", "mean_calls", "late"),
    [
        ("steady 0.5 s", 2, 2.2, 0.08),
        ("steady 5 s", 2, 2.2, 0.05),
        ("steady 60 s", 2, 2.2, 0.05),
        ("log-normal 0.5 s", 3, 3.6, 0.15),
        ("log-normal 5 s", 3, 3.8, 0.13),
        ("log-normal 60 s", 3, 3.8, 0.13),
        ("steady 5 s, no word of work", 3, 2.6, 0.05),
        ("log-normal 5 s, no word of work", 3, 3.8, 0.13),
        ("log-normal 5 s, overhead 0.5 s", 3, 4.0, 0.13),
        ("log-normal 5 s, brief queue", 3, 4.0, 0.13),
        ("bimodal 0.3 s and 10 s", 2, 2.8, 0.15),
        ("bimodal 0.3 s and 60 s", 2, 2.4, 0.15),
        ("5 times slower", 4, 4.2, 0.08),
        ("5 times faster", 3, 3.0, 0.15),
        ("5 times faster, no word of work", 3, 3.2, 0.15),
        ("stuck, one in 100", 2, 4.5, 0.15),
        ("cold, 200 of 60 s at once", 6, 9.0, 0.15),
        ("cold, 20 of 5 s", 13, 13.0, 0.3),
        ("capped, steady", 3, 3.6, 0.15),
        ("capped, steady, no positions", 3, 3.6, 0.25),
        ("capped, log-normal", 4, 4.2, 0.18),
        ("capped, log-normal, no positions", 4, 4.4, 0.18),
        ("capped, log-normal, no words at all", 4, 4.4, 0.18),
        ("capped at 2 of 100", 5, 5.5, 0.2),
        ("capped at 2 of 100, no positions", 5, 6.5, 0.25),
    ],
)
def test_few_questions_find_completions_soon(case: str, calls: float, mean_calls: float, late: float) -> None:
    """Medians of questions a job and of the lateness as a share of the service time, and the mean of the questions."""
    night = CASES[case]().run()
    assert night.polls <= calls
    assert night.polls_mean <= mean_calls
    assert night.lateness <= late


def test_ten_thousand_in_flight_are_asked_about_within_the_rate_and_nobody_starves() -> None:
    polling = Polling(log_normal(60.0), 12_000, 10_000, polls_per_s=500, submits_per_s=1000, warm_up=0)
    night = polling.run()
    assert len(night.requests) == 12_000
    assert all(one.noticed_s is not None for one in night.requests)
    assert night.polls_mean <= 4
    assert min(later - earlier for earlier, later in pairwise(night.asked_s)) >= 0.999 / 500
    assert night.most_entries <= 2 * 10_000 + 100


def test_where_the_rate_allows_less_than_is_due_each_question_finds_an_end() -> None:
    night = CASES["more to ask than may be"]().run()
    assert night.polls_mean <= 1.1
    seconds = night.asked_s[-1] - night.asked_s[0]
    assert len(night.asked_s) <= 50 * seconds + 2
    longest_s = max(one.noticed_s - one.submitted_s for one in night.requests if one.noticed_s is not None)
    assert longest_s <= 3 * 512 / 50, "each comes within some rounds"


def test_a_stuck_request_is_asked_about_at_least_each_half_a_minute() -> None:
    night = CASES["stuck, one in 100"]().run()
    slow = [one for one in night.requests if one.service_s == 3600.0]
    assert len(slow) == 10
    assert max(one.noticed_s - one.ended_s for one in slow if one.noticed_s and one.ended_s) <= 32
    assert max(one.polls for one in slow) <= 150


@pytest.mark.parametrize("case", ["capped, log-normal", "capped, log-normal, no positions"])
def test_what_waits_at_fal_costs_no_questions(case: str) -> None:
    """960 of 1,000 wait two minutes each, for work of five seconds."""
    night = CASES[case]().run()
    waited_s = [one.began_s - one.submitted_s for one in night.requests if one.began_s is not None]
    assert statistics.median(waited_s) > 60
    assert night.polls_mean <= 4.4
    assert max(one.noticed_s - one.ended_s for one in night.requests if one.noticed_s and one.ended_s) <= 300


def test_a_night_is_the_same_each_time() -> None:
    first, second = (Polling(log_normal(5.0), 300, 20, warm_up=0).run() for _ in range(2))
    assert first.asked_s == second.asked_s


def test_what_an_earlier_run_learned_needs_no_scouts() -> None:
    learned = Polling(steady(5.0), 100, 20, warm_up=0).run().line
    night = Polling(steady(5.0), 100, 20, warm_up=0, line=Line(learned.durations)).run()
    assert night.polls_mean <= 2.5


def begun(line: Line, count: int) -> list[Course]:
    return [line.enter(0.0, is_ours=True) for _ in range(count)]


def test_of_an_unknown_endpoint_only_some_are_asked_about() -> None:
    line = Line()
    looks = [line.look(course, 0.0) for course in begun(line, 100)]
    soon = [look for look in looks if look.due_s < 1.0]
    assert len(soon) == COLD_SCOUTS
    assert {look.due_s for look in looks} - {look.due_s for look in soon} == {COLD_REST_S}


def test_a_scout_that_leaves_has_a_successor() -> None:
    line = Line()
    courses = begun(line, 100)
    for course in courses:
        line.look(course, 0.0)
    line.leave(courses[0], 1.0)
    line.leave(courses[0], 1.0)
    assert (line.ended, line.scouts) == (1, COLD_SCOUTS - 1)
    assert line.look(courses[-1], 1.0).due_s < COLD_REST_S


def test_only_scouts_teach_while_nothing_is_known() -> None:
    """Of those that rest, the fast ones are found first: learning from them would make all look fast."""
    line = Line()
    courses = begun(line, 100)
    for course in courses:
        line.look(course, 0.0)
    for course in courses[50:70]:
        line.found(course, 30.0, worked_s=1.0)
    assert line.durations.sketch.count == 0
    for course in courses[:ENOUGH]:
        line.found(course, 60.0, worked_s=58.0)
    assert line.durations.is_believed


def known(duration_s: float) -> Line:
    line = Line()
    for _ in range(100):
        line.took(duration_s)
    return line


def test_a_request_of_an_earlier_run_teaches_nothing() -> None:
    line = known(5.0)
    course = line.enter(-600.0, is_ours=False)
    line.look(course, 0.0)
    line.found(course, 0.0, worked_s=300.0)
    assert line.durations.sketch.count == 100


def test_a_call_teaches_exactly_and_a_safety_nets_question_nothing() -> None:
    line = known(5.0)
    one, other = begun(line, 2)
    line.called(one, 7.0)
    line.found(other, 200.0, worked_s=5.0, is_taught=False)
    assert line.durations.sketch.count == 101
    assert line.ended == 2


def test_a_request_that_is_seen_in_the_queue_cannot_end_before_it_has_worked() -> None:
    line = known(10.0)
    (course,) = begun(line, 1)
    assert line.look(course, 0.0).due_s == pytest.approx(10.0, rel=0.05)
    line.not_yet(course, 10.2, is_queued=True, position=0)
    assert line.look(course, 10.3).due_s == pytest.approx(20.2, rel=0.05)


def test_a_long_queue_of_others_is_asked_about_ever_more_seldom() -> None:
    line = known(0.3)
    (course,) = begun(line, 1)
    now_s, asked = 0.0, 0
    while now_s < 600.0:
        now_s = max(line.look(course, now_s).due_s, now_s + 0.02)
        line.not_yet(course, now_s, is_queued=True, position=0)
        asked += 1
    assert asked <= 50


def test_a_queue_of_others_that_moves_says_when_it_ends() -> None:
    line = known(1.0)
    (course,) = begun(line, 1)
    line.not_yet(course, 1.0, is_queued=True, position=100)
    line.not_yet(course, 11.0, is_queued=True, position=80)
    assert line.look(course, 11.0).due_s > 35.0


def test_wrong_beliefs_do_not_hide_a_request_for_ever() -> None:
    line = known(5.0)
    courses = [line.enter(0.0, is_ours=True, position=number) for number in range(200)]
    now_s = 0.0
    look = line.look(courses[-1], now_s)
    while not look.is_question:
        assert look.due_s > now_s
        now_s = look.due_s
        look = line.look(courses[-1], now_s)
    assert now_s <= UNASKED_MAX_S


def test_a_question_that_came_early_for_other_reasons_teaches_no_first_one() -> None:
    line = known(10.0)
    (course,) = begun(line, 1)
    line.look(course, 0.0)
    line.not_yet(course, 0.3, is_queued=False, position=None)
    assert course.asked_s is None
    assert line.look(course, 0.4).due_s == pytest.approx(10.0, rel=0.05)


@pytest.mark.parametrize("believed_s", [1.0, 300.0, 900.0, 86_400.0])
@pytest.mark.parametrize("truly_s", [5.0, 700.0])
def test_no_request_is_out_of_sight_for_longer_than_fal_keeps_results(believed_s: float, truly_s: float) -> None:
    """Whatever was learned may be wrong for this one: a result of more than 10 KB is gone six minutes after the end."""
    line = known(believed_s)
    course = line.enter(0.0, is_ours=True)
    now_s = looked_s = 0.0
    while True:
        look = line.look(course, now_s)
        now_s = max(now_s, look.due_s)
        assert now_s - looked_s <= UNASKED_MAX_S
        if not look.is_question:
            continue
        if now_s >= truly_s:
            break
        looked_s = now_s
        line.not_yet(course, now_s, is_queued=False, position=None)
    assert now_s - truly_s <= UNASKED_MAX_S


def test_the_last_of_a_small_batch_is_asked_about_when_all_before_it_have_ended() -> None:
    """A cap of 10 and 12 requests: the last one was asked about while the first ten worked, and nothing moved."""
    line = Line()
    courses = [line.enter(0.0, is_ours=True, position=max(0, place - 9)) for place in range(12)]
    last = courses[11]
    for at_s in (1.0, 1.4, 1.8, 2.4):
        line.not_yet(last, at_s, is_queued=True, position=2)
    for place, course in enumerate(courses[:11]):
        line.found(course, 3.0 + 0.1 * place, worked_s=2.5)
    look, now_s = line.look(last, 5.0), 5.0
    while not look.is_question:
        now_s = look.due_s
        look = line.look(last, now_s)
    assert look.due_s < 15.0
