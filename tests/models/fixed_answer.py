# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a language model of 2 MB that knows one sentence: whatever it is asked, it says that and stops.

Nothing is trained or fetched, and every run writes the same bytes. Each token's embedding is a unit vector of its
own, attention and feed-forward add nothing, and the output matrix is a table of successors: after the last token of
the prompt comes the first word of the sentence, after each word the next, after the last the end of the turn.

    fixed_answer.py FILE [WORD ...]      # each WORD one token of two bytes or more, no two alike
"""

from __future__ import annotations

import array
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ANSWER = (
    "kOS", " answers", " from", " its", " own", " node", ": ", "nothing", " of", " this", " came", " over", " a ",
    "network", ", and", " every", " word", " was", " decided", " before", "hand.",
)  # fmt: skip

_MAGIC, _VERSION, _ALIGNMENT = b"GGUF", 3, 32
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_NORMAL, _CONTROL = 1, 3
_CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_HEADS, _FEED_FORWARD, _CONTEXT = 4, 32, 4096
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

Tensor = tuple[str, tuple[int, ...], bytes]


def write(path: Path, words: Iterable[str] = ANSWER) -> None:
    """Write the model that answers `words` to `path`. Raises ValueError for two alike, or of one byte."""
    spoken = list(words)
    if len(set(spoken)) != len(spoken) or min(len(word.encode()) for word in spoken) < 2:
        raise ValueError("each word is a token of its own: no two may be alike, and one byte is a token already")
    tokens, kinds = _vocabulary(spoken)
    size = -(-len(tokens) // 32) * 32
    tensors = list(_tensors(tokens, size, first=256, last=256 + len(spoken) - 1))
    fields = list(_fields(tokens, kinds, size))
    head = _MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), len(fields)) + b"".join(fields)
    offset = 0
    for name, shape, data in tensors:
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset)
        offset += len(_padded(data))
    path.write_bytes(_padded(head) + b"".join(_padded(data) for _name, _shape, data in tensors))


def _vocabulary(words: list[str]) -> tuple[list[str], list[int]]:
    """Every byte, the words, one merge (the tokenizer wants at least one), and the controls."""
    letters = _printable_bytes()
    normal = [*letters, *("".join(letters[byte] for byte in word.encode()) for word in words), "he"]
    return [*normal, *_CONTROLS], [_NORMAL] * len(normal) + [_CONTROL] * len(_CONTROLS)


def _printable_bytes() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (chr(code) for code in range(0x100, 0x200))
    return [chr(byte) if byte in shown else next(others) for byte in range(256)]


def _fields(tokens: list[str], kinds: list[int], size: int) -> Iterator[bytes]:
    start, end = len(tokens) - 3, len(tokens) - 1
    for key, kind, value in (
        ("general.architecture", _STRING, "llama"),
        ("general.name", _STRING, "kOS fixed answer"),
        ("general.license", _STRING, "CC0-1.0"),
        ("llama.context_length", _U32, _CONTEXT),
        ("llama.embedding_length", _U32, size),
        ("llama.block_count", _U32, 1),
        ("llama.feed_forward_length", _U32, _FEED_FORWARD),
        ("llama.attention.head_count", _U32, _HEADS),
        ("llama.attention.head_count_kv", _U32, _HEADS),
        ("llama.attention.layer_norm_rms_epsilon", _F32, 1e-5),
        ("llama.rope.dimension_count", _U32, size // _HEADS),
        ("llama.vocab_size", _U32, len(tokens)),
        ("tokenizer.ggml.model", _STRING, "gpt2"),
        ("tokenizer.ggml.pre", _STRING, "gpt-2"),
        ("tokenizer.ggml.bos_token_id", _U32, start),
        ("tokenizer.ggml.eos_token_id", _U32, end),
        ("tokenizer.ggml.padding_token_id", _U32, start),
        ("tokenizer.ggml.add_bos_token", _BOOL, False),
        ("tokenizer.chat_template", _STRING, _TEMPLATE),
    ):
        yield _text(key) + struct.pack("<I", kind) + _value(kind, value)
    yield _list("tokenizer.ggml.tokens", _STRING, tokens)
    yield _list("tokenizer.ggml.token_type", _I32, kinds)
    yield _list("tokenizer.ggml.merges", _STRING, ["h e"])


def _tensors(tokens: list[str], size: int, first: int, last: int) -> Iterator[Tensor]:
    count = len(tokens)
    end = count - 1
    after = dict.fromkeys(range(count), first)
    after |= {token: token + 1 for token in range(first, last)} | {last: end}
    zeros, ones = bytes(4 * size * size), array.array("f", [1.0] * size).tobytes()
    narrow = bytes(4 * size * _FEED_FORWARD)
    yield "token_embd.weight", (size, count), _matrix(size, count, ((token, token) for token in range(count)))
    yield "output.weight", (size, count), _matrix(size, count, ((then, token) for token, then in after.items()))
    yield "output_norm.weight", (size,), ones
    yield "blk.0.attn_norm.weight", (size,), ones
    yield "blk.0.ffn_norm.weight", (size,), ones
    for part in ("q", "k", "v", "output"):
        yield f"blk.0.attn_{part}.weight", (size, size), zeros
    yield "blk.0.ffn_gate.weight", (size, _FEED_FORWARD), narrow
    yield "blk.0.ffn_up.weight", (size, _FEED_FORWARD), narrow
    yield "blk.0.ffn_down.weight", (_FEED_FORWARD, size), narrow


def _matrix(width: int, rows: int, set_at: Iterable[tuple[int, int]]) -> bytes:
    """A matrix of zeros with a one at each (row, column)."""
    values = array.array("f", bytes(4 * width * rows))
    for row, column in set_at:
        values[row * width + column] = 1.0
    return values.tobytes()


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind: int, value: str | float | bool) -> bytes:
    if isinstance(value, str):
        return _text(value)
    return struct.pack({_U32: "<I", _I32: "<i", _F32: "<f", _BOOL: "<?"}[kind], value)


def _list(key: str, kind: int, values: list[str] | list[int]) -> bytes:
    items = b"".join(_value(kind, value) for value in values)
    return _text(key) + struct.pack("<IIQ", _ARRAY, kind, len(values)) + items


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    write(Path(sys.argv[1]), sys.argv[2:] or ANSWER)
