"""A LoRA file that loads: safetensors, with a handful of small tensors of seeded noise."""

from __future__ import annotations

import hashlib
import json
from typing import Final

_RANK: Final = 4
_WIDTH: Final = 64
_LAYERS: Final = 4
_BYTES_EACH: Final = 2
"""Half precision."""


def weights_size(trigger: str, steps: int) -> int:
    """Bytes of the file."""
    return len(_header(trigger, steps)) + _noise_size()


def make_weights(seed: str, trigger: str, steps: int) -> bytes:
    """The file: eight bytes of length, a JSON header, the tensors. Every value is a small finite number."""
    noise = hashlib.shake_128(f"{seed}\x1f{trigger}\x1f{steps}".encode("utf-8", "replace")).digest(_noise_size())
    # The upper byte of a half holds sign and exponent: cleared but for the sign and a small exponent.
    body = bytearray(noise)
    body[1::2] = bytes((value & 0x80) | 0x20 | (value & 0x07) for value in noise[1::2])
    return _header(trigger, steps) + bytes(body)


def _shapes() -> dict[str, list[int]]:
    return {
        f"transformer.single_transformer_blocks.{layer}.attn.to_q.lora_{half}.weight": shape
        for layer in range(_LAYERS)
        for half, shape in (("A", [_RANK, _WIDTH]), ("B", [_WIDTH, _RANK]))
    }


def _noise_size() -> int:
    return _BYTES_EACH * sum(rows * columns for rows, columns in _shapes().values())


def _header(trigger: str, steps: int) -> bytes:
    table: dict[str, object] = {"__metadata__": {"format": "pt", "trigger_word": trigger, "steps": str(steps)}}
    offset = 0
    for name, shape in _shapes().items():
        end = offset + _BYTES_EACH * shape[0] * shape[1]
        table[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(table, separators=(",", ":")).encode()
    # Padded with spaces to a multiple of eight, as the format asks.
    text = text.ljust(-(-len(text) // 8) * 8)
    return len(text).to_bytes(8, "little") + text
