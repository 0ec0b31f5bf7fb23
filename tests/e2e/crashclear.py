# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An encrypted partition in clear, while the writes to it are replayed.

By OpenSSL itself: `cryptography` makes a new cipher for every sector, which takes a recorded install ten minutes.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools

import sparse

# plain64: the tweak is the number of the sector, counted in 512 bytes whatever their size is.
_COUNTED = 512
# A key of 512 bits is two of AES-256 (cryptsetup's default).
_KEY_BYTES = 64


@functools.cache
def _openssl():
    library = ctypes.CDLL(ctypes.util.find_library("crypto"))
    for name in ("EVP_aes_256_xts", "EVP_CIPHER_CTX_new"):
        getattr(library, name).restype = ctypes.c_void_p
    library.EVP_DecryptInit_ex.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_char_p] * 2
    library.EVP_DecryptUpdate.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_void_p, ctypes.c_int]
    return library


class Xts:
    """Decrypts sectors of `sector` bytes by aes-xts-plain64."""

    def __init__(self, key, sector):
        assert len(key) == _KEY_BYTES, len(key)
        self._sector = sector
        self._context = _openssl().EVP_CIPHER_CTX_new()
        done = _openssl().EVP_DecryptInit_ex(self._context, _openssl().EVP_aes_256_xts(), None, key, bytes(16))
        assert done == 1

    def decrypted(self, number, content):
        """The clear of whole sectors; the first one's number, in units of 512 bytes, is `number`."""
        assert len(content) % self._sector == 0, len(content)
        source, clear = ctypes.create_string_buffer(content, len(content)), ctypes.create_string_buffer(len(content))
        begin, update, written = _openssl().EVP_DecryptInit_ex, _openssl().EVP_DecryptUpdate, ctypes.c_int()
        where, to, from_ = ctypes.addressof(written), ctypes.addressof(clear), ctypes.addressof(source)
        for at in range(0, len(content), self._sector):
            tweak = (number + at // _COUNTED).to_bytes(16, "little")
            good = begin(self._context, None, None, None, tweak)
            good &= update(self._context, to + at, where, from_ + at, self._sector)
            assert good == 1
        return clear.raw


class Clear:
    """The content of an encrypted partition in clear, kept up write by write: a file of its own."""

    def __init__(self, file, where, header, key):
        segment = header["segments"]["0"]
        assert segment["encryption"] == "aes-xts-plain64", segment
        self._start, self._end = where.start + int(segment["offset"]), where.end
        self._xts = Xts(key, segment["sector_size"])
        file.unlink(missing_ok=True)
        with file.open("wb") as stream:
            stream.truncate(self._end - self._start)
        self._file = file.open("r+b", buffering=0)

    def put(self, at, content):
        first, last = max(at, self._start), min(at + len(content), self._end)
        if first >= last:
            return
        clear = self._xts.decrypted((first - self._start) // _COUNTED, content[first - at : last - at])
        self._file.seek(first - self._start)
        self._file.write(clear)

    def discard(self, start, end):
        first, last = max(start, self._start), min(end, self._end)
        if first < last:
            sparse.punch(self._file, first - self._start, last - self._start)

    def saved(self, start, end):
        """What restores a region, wherever it lies."""
        first, last = max(start, self._start), min(end, self._end)
        if first >= last:
            return None
        return sparse.saved(self._file, first - self._start, last - self._start)
