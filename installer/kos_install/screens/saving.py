# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The answers as a file, as a person would write it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from .model import Session
from .words import _

USUAL = Path("/root/answers.yaml")
_HEAD = "# Answers of kos-install. The secrets are not in it: kos-install --schema says where they may come from.\n"


def save(answers: dict[str, Any], path: Path, over: bool = False) -> None:
    """Write the file, for its owner alone: it may hold the hash of a password.

    Raises FileExistsError where it is there already and `over` does not say to overwrite it; OSError.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if over else os.O_EXCL), 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), 0o600)
        stream.write(_HEAD + yaml.safe_dump(answers, sort_keys=False, allow_unicode=True))
        stream.flush()
        os.fsync(stream.fileno())


def free(path: Path) -> Path:
    """The first name like this one that no file has yet: ``answers-2.yaml``."""
    names = (path, *(path.with_stem(f"{path.stem}-{number}") for number in range(2, 100)))
    return next((name for name in names if not name.exists()), path)


def about(session: Session) -> str:
    """What to know before saving."""
    said = [
        _("Secrets are not in it. A file for an install that nobody watches needs a few lines more: see the manual.")
    ]
    if session.record:
        said.append(_("The files of this medium are in memory and gone when it is turned off: copy this one away."))
    return " ".join(said)


def there(path: Path) -> str:
    """What to say where a file would be overwritten."""
    text = _("{path} is there already. Enter takes the name below; to overwrite it, type its name again.")
    return text.format(path=path)
