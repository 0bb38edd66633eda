"""Text that models write: answers, and what was said in a sound. A pure function of what was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox.ids import chance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OPENINGS: Final = ("In short", "Seen from afar", "Looking closer", "To begin with", "As a rule")
_SUBJECTS: Final = ("the light", "the question", "a quiet pattern", "the detail", "every part of it")
_VERBS: Final = ("leads back to", "is held together by", "grows out of", "answers", "makes room for")
_SPEAKERS: Final = ("I think", "You know", "Well", "And then", "Of course")
_THINGS: Final = ("the harbour", "an old kite", "this recording", "the weather", "our dinner")
_STATES: Final = ("was better than expected", "came up again", "is worth a note", "took its time", "sounded right")

SENTENCES: Final = 3
"""Of an answer without a limit."""


def answer_text(prompt: str, seed: object, max_words: int | None = None) -> str:
    """A few sentences about the prompt, cut off after `max_words`."""
    sentences = [_sentence(prompt, seed, number) for number in range(SENTENCES)]
    words = " ".join(sentences).split(" ")
    return " ".join(words[:max_words])


def reasoning_text(prompt: str) -> str:
    """What the model says it thought."""
    return f"The prompt has {len(prompt.split())} words; three sentences about its beginning will do."


def usage(prompt: str, text: str, cost: float) -> dict[str, Any]:
    """Tokens, counted as words."""
    tokens = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(text.split())}
    return {**tokens, "total_tokens": sum(tokens.values()), "cost": cost}


def spoken_text(audio_url: str, seconds: float) -> str:
    """What is said in a sound that nobody can hear: about two words a second."""
    count = max(1, round(seconds / 4))
    return " ".join(
        f"{_pick(_SPEAKERS, audio_url, n, 0)}, {_pick(_THINGS, audio_url, n, 1)} {_pick(_STATES, audio_url, n, 2)}."
        for n in range(count)
    )


def transcript(text: str, seconds: float, given: Mapping[str, Any]) -> dict[str, Any]:
    """All that a transcription may answer; times are shared out by letters (fal-protocol §12)."""
    level = given.get("chunk_level", "segment")
    parts = [] if level == "none" else text.split() if level == "word" else _segments(text)
    has_speakers = bool(given.get("diarize"))
    chunks = [
        {"timestamp": span, "text": part, "speaker": f"SPEAKER_{number % 2:02}" if has_speakers else None}
        for number, (part, span) in enumerate(zip(parts, _spans(parts, seconds), strict=True))
    ]
    languages = [given.get("language") or "en"]
    segments = [{"timestamp": chunk["timestamp"], "speaker": chunk["speaker"]} for chunk in chunks]
    return {
        "text": text,
        "chunks": chunks,
        "languages": languages,
        "inferred_languages": languages,
        "diarization_segments": segments if has_speakers else [],
    }


def _segments(text: str) -> list[str]:
    """Sentences, by their full stops."""
    parts = [part.strip() for part in text.replace(". ", ".\n").split("\n")]
    return [part for part in parts if part]


def _spans(parts: Sequence[str], seconds: float) -> list[list[float]]:
    """Start and end of each part, without gaps."""
    total, done, spans = sum(map(len, parts)) or 1, 0, []
    for part in parts:
        start = seconds * done / total
        done += len(part)
        spans.append([round(start, 2), round(seconds * done / total, 2)])
    return spans


def _sentence(prompt: str, seed: object, number: int) -> str:
    def pick(words: tuple[str, ...], what: str) -> str:
        return words[int(chance(prompt, seed, number, what) * len(words))]

    topic = " ".join(prompt.split()[:6]) or "nothing"
    return f"{pick(_OPENINGS, 'opening')}, {pick(_SUBJECTS, 'subject')} {pick(_VERBS, 'verb')} “{topic}”."


def _pick(words: tuple[str, ...], *place: object) -> str:
    return words[int(chance(*place) * len(words))]
