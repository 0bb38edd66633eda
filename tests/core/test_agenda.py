"""Who is due comes out, the likeliest first, each once; and what is void takes no room for long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.agenda import STALE_LEAST, Agenda


class Thing:
    """Compared by identity."""


def test_nobody_comes_before_the_date() -> None:
    agenda: Agenda[Thing] = Agenda()
    one = Thing()
    agenda.put(one, 5.0, 7.0)
    assert agenda.next_ready(4.9) is None
    assert agenda.next_s() == 5.0
    assert agenda.next_ready(5.0) is one
    assert agenda.next_ready(9.0) is None
    assert agenda.next_s() is None
    assert len(agenda) == 0


def test_of_those_that_are_due_the_likeliest_goes_first() -> None:
    agenda: Agenda[Thing] = Agenda()
    things = [Thing() for _ in range(3)]
    for thing, due_s, likely_s in zip(things, (1.0, 2.0, 3.0), (30.0, 10.0, 20.0), strict=True):
        agenda.put(thing, due_s, likely_s)
    assert [agenda.next_ready(5.0) for _ in range(3)] == [things[1], things[2], things[0]]


def test_whoever_waits_long_enough_is_before_all_newcomers() -> None:
    """More is due than is taken out, for ever: the one that is unlikely comes all the same."""
    agenda: Agenda[Thing] = Agenda()
    slow = Thing()
    agenda.put(slow, 0.0, 100.0)
    for second in range(200):
        for _ in range(2):
            agenda.put(Thing(), float(second), second + 1.0)
        if agenda.next_ready(float(second)) is slow:
            break
    else:
        raise AssertionError("it starved")


def test_a_new_date_makes_the_old_one_void_and_drop_makes_all() -> None:
    agenda: Agenda[Thing] = Agenda()
    one, other = Thing(), Thing()
    agenda.put(one, 1.0, 1.0)
    agenda.put(one, 10.0, 10.0)
    agenda.put(other, 2.0, 2.0)
    agenda.drop(other)
    agenda.drop(other)
    assert agenda.next_s() == 10.0
    assert agenda.next_ready(5.0) is None
    assert agenda.next_ready(10.0) is one


def test_a_date_that_is_ready_is_now() -> None:
    agenda: Agenda[Thing] = Agenda()
    things = [Thing() for _ in range(2)]
    for thing in things:
        agenda.put(thing, 1.0, 1.0)
    assert agenda.next_ready(1.0) is things[0]
    assert agenda.next_s() == float("-inf")
    agenda.drop(things[1])
    assert agenda.next_s() is None


def test_void_entries_are_cleared_away() -> None:
    agenda: Agenda[Thing] = Agenda()
    things = [Thing() for _ in range(10)]
    for number in range(10_000):
        agenda.put(things[number % 10], 1e6 + number, 0.0)
    assert agenda.entries <= 2 * len(things) + STALE_LEAST
    for number in range(10_000):
        fleeting = Thing()
        agenda.put(fleeting, 1e6 + number, 0.0)
        agenda.drop(fleeting)
    assert agenda.entries <= 2 * len(things) + STALE_LEAST + 1


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 10), st.floats(0, 10), st.booleans()), max_size=40))
def test_each_comes_once_at_its_latest_date(moves: list[tuple[int, float, float, bool]]) -> None:
    agenda: Agenda[Thing] = Agenda()
    things = [Thing() for _ in range(6)]
    dates: dict[Thing, float] = {}
    for number, due_s, likely_s, is_dropped in moves:
        if is_dropped:
            agenda.drop(things[number])
            dates.pop(things[number], None)
        else:
            agenda.put(things[number], due_s, likely_s)
            dates[things[number]] = due_s
    for now_s in (3.0, 6.0, 10.0):
        came = []
        while (thing := agenda.next_ready(now_s)) is not None:
            came.append(thing)
        assert set(came) == {thing for thing, due_s in dates.items() if due_s <= now_s}
        assert len(came) == len(set(came))
        for thing in came:
            del dates[thing]
