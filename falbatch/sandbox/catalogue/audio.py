"""From text to speech and back (fal-protocol §12)."""

from __future__ import annotations

from typing import Final

from falbatch.sandbox.catalogue.fields import Schema, choice, flag, listed, number, record, ref, text, whole
from falbatch.sandbox.catalogue.model import Model
from falbatch.sandbox.catalogue.shared import FILE

_FEMALE: Final = "heart alloy aoede bella jessica kore nicole nova river sarah sky"
_MALE: Final = "adam echo eric fenrir liam michael onyx puck santa"
_VOICES: Final = [*(f"af_{name}" for name in _FEMALE.split()), *(f"am_{name}" for name in _MALE.split())]
_SPOKEN: Final = (
    "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr "
    "ht hu hy id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc "
    "pa pl ps pt ro ru sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo zh"
)
_LANGUAGES: Final = _SPOKEN.split()

_SPEECH: Final = "https://storage.googleapis.com/falserverless/example_inputs/dinner_conversation.mp3"


def _audio_url() -> Schema:
    return text(
        "Audio Url",
        "URL of the audio file: mp3, mp4, mpeg, mpga, m4a, wav or webm.",
        examples=[_SPEECH],
        **{"x-fal": {"timeout": 20.0}},
    )


def _chunk(*, with_speaker: bool) -> Schema:
    properties = {
        "timestamp": listed(
            "Timestamp", "Start and end of the chunk in seconds.", {"type": "number"}, minItems=2, maxItems=2
        ),
        "text": text("Text", "Transcription of the chunk."),
    }
    if with_speaker:
        what = "Who speaks, when the file was diarized."
        properties["speaker"] = text("Speaker", what, nullable=True)
    return record("WhisperChunk", properties, ["timestamp", "text"])


def _kokoro(endpoint: str, title: str) -> Model:
    return Model(
        endpoint,
        title,
        "text-to-audio",
        "A small text-to-speech model.",
        input=record(
            "AmEnglishRequest",
            {
                "prompt": text(
                    "Prompt", "The text to speak.", default="", examples=["The kite is up, and the wind is kind today."]
                ),
                "voice": choice("Voice", "The voice that speaks.", _VOICES, default="af_heart", examples=["af_heart"]),
                "speed": number("Speed", "Speed of the speech.", default=1, minimum=0.1, maximum=5),
            },
        ),
        output=record("AmEngOutput", {"audio": ref("File", "Audio", "The generated speech.")}, ["audio"]),
        shared={"File": FILE},
        tags=("speech",),
        group=("kokoro", "Kokoro"),
        date="2025-01-20T00:00:00.000Z",
    )


_WHISPER: Final = Model(
    "fal-ai/whisper",
    "Whisper",
    "speech-to-text",
    "Transcription and translation of speech.",
    input=record(
        "WhisperInput",
        {
            "audio_url": _audio_url(),
            "task": choice("Task", "What to do with the speech.", ["transcribe", "translate"], default="transcribe"),
            "language": choice("Language", "Language of the speech; null detects it.", _LANGUAGES, nullable=True),
            "diarize": flag("Diarize", "Whether to tell the speakers apart.", default=False),
            "chunk_level": choice(
                "Chunk Level", "How finely times are given.", ["none", "segment", "word"], default="segment"
            ),
            "version": choice("Version", "Version of the model.", ["3"], default="3"),
            "batch_size": whole("Batch Size", "Chunks transcribed at once.", default=64, minimum=1, maximum=64),
            "prompt": text("Prompt", "Words that help with the style of the text.", default="", maxLength=896),
            "num_speakers": whole("Num Speakers", "How many people speak.", nullable=True, minimum=1),
        },
        ["audio_url"],
    ),
    output=record(
        "WhisperOutput",
        {
            "text": text("Text", "Transcription of the file."),
            "chunks": listed("Chunks", "Parts of the text with their times.", ref("WhisperChunk"), nullable=True),
            "inferred_languages": listed("Inferred Languages", "Languages that were heard.", {"type": "string"}),
            "diarization_segments": listed("Diarization Segments", "Who spoke when.", ref("DiarizationSegment")),
        },
        ["text", "inferred_languages", "diarization_segments"],
    ),
    shared={
        "WhisperChunk": _chunk(with_speaker=True),
        "DiarizationSegment": record(
            "DiarizationSegment",
            {
                "timestamp": listed("Timestamp", "Start and end in seconds.", {"type": "number"}),
                "speaker": text("Speaker", "Who speaks."),
            },
            ["timestamp", "speaker"],
        ),
    },
    tags=("transcription", "translation", "speech"),
    date="2024-01-10T00:00:00.000Z",
)

_WIZPER: Final = Model(
    "fal-ai/wizper",
    "Wizper (Whisper v3)",
    "speech-to-text",
    "Whisper v3, twice as fast.",
    input=record(
        "WizperInput",
        {
            "audio_url": _audio_url(),
            "task": choice("Task", "What to do with the speech.", ["transcribe", "translate"], default="transcribe"),
            "language": choice(
                "Language", "Language of the speech; null detects it.", _LANGUAGES, nullable=True, default="en"
            ),
            "chunk_level": text("Chunk Level", "How finely times are given.", default="segment"),
            "max_segment_len": whole(
                "Max Segment Len", "Longest segment in seconds.", default=29, minimum=10, maximum=29
            ),
            "merge_chunks": flag("Merge Chunks", "Whether to merge consecutive chunks.", default=True),
            "version": choice("Version", "Version of the model.", ["3"], default="3"),
        },
        ["audio_url"],
    ),
    output=record(
        "WizperOutput",
        {
            "text": text("Text", "Transcription of the file."),
            "chunks": listed("Chunks", "Parts of the text with their times.", ref("WhisperChunk")),
            "languages": listed("Languages", "Languages that were heard.", {"type": "string"}),
        },
        ["text", "chunks", "languages"],
    ),
    shared={"WhisperChunk": _chunk(with_speaker=False)},
    tags=("transcription", "speech"),
    date="2024-07-15T00:00:00.000Z",
)

MODELS: Final = (
    _kokoro("fal-ai/kokoro", "Kokoro"),
    _kokoro("fal-ai/kokoro/american-english", "Kokoro TTS (American English)"),
    _WHISPER,
    _WIZPER,
)
