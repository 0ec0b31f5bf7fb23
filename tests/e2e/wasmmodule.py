# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A WebAssembly program (WASI preview 1) that prints one line, byte by byte after the format's specification."""

from __future__ import annotations

_HEAD = b"\0asm\1\0\0\0"
_I32, _FUNCTION, _END = b"\x7f", b"\x60", b"\x0b"
# Where in memory the text begins: behind the one row of (address, length) that fd_write is given.
_TEXT, _WRITTEN = 8, b"\xe4\x00"


def _number(value: int) -> bytes:
    """`value` as unsigned LEB128."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _number(rest) if rest else bytes([low])


def _counted(content: bytes) -> bytes:
    return _number(len(content)) + content


def _section(number: int, *entries: bytes) -> bytes:
    return bytes([number]) + _counted(_number(len(entries)) + b"".join(entries))


def _constant(value: bytes) -> bytes:
    return b"\x41" + value


def printing(text: bytes) -> bytes:
    """The module whose ``_start`` writes `text` to its standard output."""
    row = _TEXT.to_bytes(4, "little") + len(text).to_bytes(4, "little")
    # fd_write(1, rows at 0, one of them, where it notes how much was written), whose result is dropped
    code = _constant(b"\1") + _constant(b"\0") + _constant(b"\1") + _constant(_WRITTEN) + b"\x10\0\x1a" + _END
    return _HEAD + b"".join(
        (
            _section(1, _FUNCTION + _counted(4 * _I32) + _counted(_I32), _FUNCTION + b"\0\0"),
            _section(2, _counted(b"wasi_snapshot_preview1") + _counted(b"fd_write") + b"\0\0"),
            _section(3, b"\1"),
            _section(5, b"\0\1"),
            _section(7, _counted(b"memory") + b"\2\0", _counted(b"_start") + b"\0\1"),
            _section(10, _counted(b"\0" + code)),
            _section(11, b"\0" + _constant(b"\0") + _END + _counted(row + text)),
        )
    )
