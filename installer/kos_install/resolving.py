# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A profile with an answer's settings, resolved as `kai plan` and every other door do it. Slow at first: a second."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.plugins.plugin_utils import assemble
from ansible_collections.kind.kos.plugins.plugin_utils.assemble import Planned, Request
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError, Fault, Place, shown_path
from ansible_collections.kind.kos.plugins.plugin_utils.hardware import Facts

SETTINGS = "settings"
ANSWERS = Place("answers")


def planned(
    profile: str,
    environment: str | None,
    settings: Mapping[str, Any],
    facts: Facts,
    accepted: frozenset[str] = frozenset(),
) -> Planned:
    """What would run on a machine with these facts.

    Raises ConfigurationError; what is wrong in the settings has the key of the answers that they stand in.
    """
    return _planned(profile, environment, json.dumps(settings, sort_keys=True), accepted, facts.model_dump_json())


@cache
def _planned(profile: str, environment: str | None, settings: str, accepted: frozenset[str], seen: str) -> Planned:
    with tempfile.TemporaryDirectory(prefix="kos-install-") as folder:
        layer = Path(folder, f"{SETTINGS}.json")
        layer.write_text(settings, encoding="utf-8")
        request = Request(profile, environment, user=layer, accepted=accepted)
        try:
            return assemble.plan(request, Facts.model_validate_json(seen))
        except ConfigurationError as error:
            raise ConfigurationError(_as_answered(error.faults, layer, json.loads(settings))) from None


def _as_answered(faults: list[Fault], layer: Path, settings: Mapping[str, Any]) -> Iterator[Fault]:
    """The faults with the answers in the place of the file that the layers were read from."""
    shown = shown_path(layer)
    for fault in faults:
        written = fault.place.file == shown if fault.place else fault.key.partition(".")[0] in settings
        # All of it is one line there, which says nothing.
        message = fault.message.replace(f"{shown}:1", ANSWERS.file)
        key, place = fault.key, fault.place
        if written:
            key, place = f"{SETTINGS}.{key}".removesuffix("."), ANSWERS
        yield replace(fault, message=message, key=key, place=place)
