# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a passphrase would stand against a machine that guesses, by a rule that can be said in a sentence.

What is repeated or in order counts once, what every list of passwords has counts as one guess of a thousand, and the
rest counts by the kinds of characters used: an estimate from above. argon2id makes one guess cost a good part of a
second.
"""

from __future__ import annotations

import itertools
import math
import re
import string

# Bits: below the first it is refused, from the second on it is good.
WEAK, GOOD = 36, 60
LEAST = 8  # characters
LONGEST = 512  # bytes: what cryptsetup reads of a passphrase that is typed
UNTYPEABLE = "it holds a line break or a control character, which nobody could type"
# The heart of every published list of passwords (for example Debian's package wamerican has none of them as words).
_COMMON = re.compile(
    r"pass(wor[dt]|phrase)?|passwort|geheim|hallo|secret|letmein|welcome|willkommen|admin|root|login|master|dragon|"
    r"monkey|iloveyou|sunshine|princess|football|fussball|schatz|qwert[yz]u?i?o?p?|asdfg?h?j?k?l?|yxcvb|zxcvb|debian|"
    r"linux|kos|change ?me|"
    r"(19|20)\d\d",
    re.IGNORECASE,
)
_COMMON_BITS = 10.0
_KINDS = (string.ascii_lowercase, string.ascii_uppercase, string.digits, string.punctuation + " ")
_OTHER_KINDS = 100  # letters of other alphabets


def fault(passphrase: str) -> str:
    """What is wrong with a passphrase, without repeating it; empty where nothing is."""
    if not passphrase.isprintable():
        return UNTYPEABLE
    if len(passphrase) < LEAST:
        return f"it is shorter than {LEAST} characters"
    if len(passphrase.encode()) > LONGEST:
        return f"it is longer than {LONGEST} bytes"
    if bits(passphrase) < WEAK:
        return "it is too easy to guess: take four or five words that do not belong together"
    return ""


def bits(passphrase: str) -> float:
    """How many bits it is worth at most; none where it is shorter than any that is accepted."""
    if len(passphrase) < LEAST:
        return 0.0
    common = len(_COMMON.findall(passphrase))
    rest = _without_runs(_COMMON.sub("", passphrase))
    size = sum(len(kind) for kind in _KINDS if set(kind) & set(rest))
    size += _OTHER_KINDS if any(letter not in "".join(_KINDS) for letter in rest) else 0
    words = [word for word in re.split(r"[\s_-]+", rest) if word]
    letters = len(rest) * math.log2(size) if size else 0.0
    # A sentence is guessed word by word: 13 bits are a word of the 7776 of a dice list.
    spoken = sum(min(len(word) * math.log2(26), 13.0) for word in words) if rest.replace(" ", "").isalpha() else letters
    return round(common * _COMMON_BITS + min(letters, spoken), 1)


def _without_runs(text: str) -> str:
    """The text with what repeats or counts up or down (aaaa, abcd, 4321) said once: its first two letters."""
    steps = [ord(second) - ord(first) for first, second in itertools.pairwise(text)]
    runs = [abs(step) <= 1 and step == before for before, step in itertools.pairwise(steps)]
    return text[:2] + "".join(letter for letter, run in zip(text[2:], runs, strict=True) if not run)
