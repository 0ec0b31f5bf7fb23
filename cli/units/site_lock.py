# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The site's own image lock: what `kai unit build` and `kai unit lock` found out, over the project's."""

from __future__ import annotations

from pathlib import Path

import yaml

from ...plugins.plugin_utils.documents import read_document
from ...plugins.plugin_utils.images import Image, ImageLock
from ...plugins.plugin_utils.models import parse
from ...plugins.plugin_utils.unit_store import locked

_HEAD = """\
# The images of this site, written by `kai unit build` and `kai unit lock`: its rows go over those of
# the project's services/images.lock. Keep it with your layers: a plan depends on it.
"""


def enter(path: Path, name: str, row: Image) -> Image:
    """Put a row over what the lock has for `name`; returns the row as it is now. Raises ConfigurationError, OSError.

    Digests of another architecture stay, where they are of the same repository and tag.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        rows = read(path)
        known = rows.get(name)
        if known and (known.repository, known.tag) == (row.repository, row.tag):
            row = row.model_copy(update={"digests": {**known.digests, **row.digests}})
        _write(path, {**rows, name: row})
    return row


def read(path: Path) -> dict[str, Image]:
    """The rows of the lock; none where there is no file. Raises ConfigurationError."""
    if not path.is_file():
        return {}
    document = read_document(path)
    return dict(parse(ImageLock, document.data, document.place).images)


def _write(path: Path, rows: dict[str, Image]) -> None:
    data = {"version": 1, "images": {name: rows[name].model_dump(exclude_none=True) for name in sorted(rows)}}
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_text(
        _HEAD + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120), encoding="utf-8"
    )
    unfinished.rename(path)
