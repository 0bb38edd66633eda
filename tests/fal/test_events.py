"""Server-sent events, however the bytes are cut (WHATWG HTML, "Server-sent events")."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.fal.events import EventDecoder, OversizeEvent, ServerSentEvent


def consume(decoder: EventDecoder, stream: bytes) -> None:
    for byte in stream:
        decoder.feed(bytes([byte]))


def decoded(*chunks: bytes) -> list[ServerSentEvent]:
    decoder = EventDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [(b"a", "", "")]),
        (b"data:a\r\n\r\n", [(b"a", "", "")]),
        (b"data:  a\r\r", [(b" a", "", "")]),
        (b"data: a\ndata: b\ndata\n\n", [(b"a\nb\n", "", "")]),
        (b": ping\n\n: ping\n\ndata: a\n: inside\n\n", [(b"a", "", "")]),
        (b"\xef\xbb\xbfdata: a\n\ndata: b\n\n", [(b"a", "", ""), (b"b", "", "")]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [(b"a", "", "")]),
        (b"event: done\nid: 7\ndata: a\n\ndata: b\n\n", [(b"a", "done", "7"), (b"b", "", "7")]),
        (b"event: done\n\ndata: b\n\n", [(b"b", "", "")]),
        (b"id: 1\0\ndata: b\n\n", [(b"b", "", "")]),
        (b"retry: 10\nnonsense: x\nnonsense\ndata: b\n\n", [(b"b", "", "")]),
        (b"data: caf\xc3\xa9\n\n", [("café".encode(), "", "")]),
        (b"data: a\x0bb\x1cc\xe2\x80\xa8d\n\n", [("a\x0bb\x1cc\u2028d".encode(), "", "")]),
        (b"data\n\n", [(b"", "", "")]),
        (b"data: a", []),
        (b"data: a\n", []),
        (b"", []),
        (b"\n\r\n\r", []),
    ],
)
def test_a_stream_is_read_as_browsers_do(stream: bytes, events: list[tuple[bytes, str, str]]) -> None:
    expected = [ServerSentEvent(*event) for event in events]
    assert decoded(stream) == expected
    assert decoded(*(bytes([byte]) for byte in stream)) == expected
    assert decoded(*(part for byte in stream for part in (b"", bytes([byte])))) == expected


LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
NAMES = st.sampled_from(["", "tick", "Ü"])


@given(
    st.lists(st.tuples(NAMES, st.lists(LINE, min_size=1, max_size=4)), max_size=6),
    ENDS,
    st.booleans(),
    st.lists(LINE, max_size=3),
    st.data(),
)
def test_events_survive_every_cut(
    events: list[tuple[str, list[str]]], end: bytes, mark: bool, comments: list[str], data: st.DataObject
) -> None:
    stream = b"\xef\xbb\xbf" if mark else b""
    for name, lines in events:
        stream += b"".join(b":" + comment.encode() + end for comment in comments)
        stream += b"event: " + name.encode() + end if name else b""
        stream += b"".join(b"data: " + line.encode() + end for line in lines) + end
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    decoder = EventDecoder()
    got = [event for chunk in chunks for event in decoder.feed(chunk)]
    assert got == [ServerSentEvent("\n".join(lines).encode(), name) for name, lines in events]
    assert decoder.rest() is None


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_garbage_gives_the_same_events_however_it_is_cut(chunks: list[bytes]) -> None:
    one, other = EventDecoder(), EventDecoder()
    whole = one.feed(b"".join(chunks))
    assert [event for chunk in chunks for event in other.feed(chunk)] == whole
    assert one.rest() == other.rest()


@pytest.mark.parametrize(
    ("stream", "rest"),
    [(b"data: a", b"a"), (b"data: a\n", b"a"), (b"data: a\r", b"a"), (b"data: a\n\n", None), (b": x", None)],
)
def test_what_the_end_left_open_is_told(stream: bytes, rest: bytes | None) -> None:
    decoder = EventDecoder()
    decoder.feed(stream)
    left = decoder.rest()
    assert (left.data if left else None) == rest


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 200, b"data: x\n" * 20, b"data\n" * 30, b"x" * 200, b":" * 200])
def test_an_event_is_bounded(stream: bytes) -> None:
    decoder = EventDecoder(max_bytes=100)
    with pytest.raises(OversizeEvent, match="100"):
        consume(decoder, stream)


def test_many_small_events_and_comments_are_not_one_big_one() -> None:
    decoder = EventDecoder(max_bytes=100)
    assert sum(len(decoder.feed(b": ping\ndata: x\n\n: a\nid: 1\n")) for _ in range(100)) == 100
    for _ in range(100):
        decoder.feed(b": ping, and never an empty line\n")


def test_a_large_event_in_small_chunks_takes_linear_time() -> None:
    decoder = EventDecoder()
    size = 4_000_000
    for _ in range(size // 1000):
        assert decoder.feed(b"data: " + b"x" * 1000 if _ == 0 else b"x" * 1000) == []
    [event] = decoder.feed(b"\n\n")
    assert len(event.data) == size
