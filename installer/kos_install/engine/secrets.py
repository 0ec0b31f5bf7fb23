# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that a client sends: which ones an install wants, and that no event ever holds one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .. import secrets as sources
from ..answers import FORGOTTEN, Answers, hash_of_password
from ..errors import UsageError

PASSPHRASE, PIN, WIFI = "passphrase", "tpm2_pin", "wifi:"
# The hash of the user's password, where an install goes on whose journal does not keep it.
PASSWORD_HASH = "password_hash"  # noqa: S105 -- a name
_NAME = re.compile(rf"{PASSPHRASE}|{PIN}|{PASSWORD_HASH}|{WIFI}.{{1,32}}", re.DOTALL)
# A secret shorter than this cannot be told from ordinary text, and is not looked for in it.
_SHORTEST_TOLD = 4


def name(given: Any) -> str:
    """A name of a secret. Raises UsageError."""
    if not isinstance(given, str) or not _NAME.fullmatch(given):
        raise UsageError("a secret is called passphrase, tpm2_pin, wifi:SSID or password_hash")
    return given


def value(called: str, given: Any) -> str:
    """A secret of this name that can be typed again, and is not to be guessed. Raises UsageError, without it."""
    if not isinstance(given, str):
        raise UsageError(f"{called}: a secret is text")
    if called == PASSWORD_HASH:
        try:
            return hash_of_password(given)
        except ValueError as error:
            raise UsageError(f"{called}: {error}") from None
    if wrong := sources.fault(called, given):
        raise UsageError(f"{called}: {wrong}")
    return sources.normal(given)


def wanted(answers: Answers) -> list[str]:
    """The names of the secrets that somebody has to type."""
    typed = [called for called, (_key, secret) in sources.wanted(answers).items() if secret.prompt]
    return [*typed, PASSWORD_HASH] if answers.user.password_hash == FORGOTTEN else typed


def missing(answers: Answers, given: Mapping[str, str]) -> list[str]:
    """The names of those that nobody has typed yet."""
    return [called for called in wanted(answers) if called not in given]


def redacted(data: Any, kept: Iterable[str]) -> Any:
    """The same data without any of these secrets in its texts: whatever a program said, they are not passed on."""
    words = sorted((word for word in kept if len(word) >= _SHORTEST_TOLD), key=len, reverse=True)
    return _redacted(data, words) if words else data


def _redacted(data: Any, words: list[str]) -> Any:
    if isinstance(data, str):
        for word in words:
            data = data.replace(word, "***")
        return data
    if isinstance(data, Mapping):
        return {key: _redacted(item, words) for key, item in data.items()}
    if isinstance(data, list | tuple):
        return [_redacted(item, words) for item in data]
    return data
