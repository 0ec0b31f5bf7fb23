# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan must know that is neither answered nor hardware: the profile's minimum, and what the medium is."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.plugins.plugin_utils import assemble, layers
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError, Fault, Place
from ansible_collections.kind.kos.plugins.plugin_utils.profile import Minimum

from . import localities, medium
from .answers import Answers
from .storage.plan import Circumstances

CONFIGS = assemble.COLLECTION / "configs"


def circumstances(
    answers: Answers, attended: bool, place: str = "answers", record: Mapping[str, Any] | None = None
) -> Circumstances:
    """With the whole configuration read once: what is wrong in it must not come out on a half installed disk.

    `record`: what the medium is; default: the one that this system was started from. `place` names the answers in
    faults. Raises ConfigurationError.
    """
    record = medium.record() if record is None else record
    profile = answers.profile or record.get("profile")
    if profile is None and (answers.settings or answers.environment):
        raise ConfigurationError([Fault("settings and environment need a profile", Place(place), "profile", "add it")])
    # What another medium has is not known here; but what no list knows is a slip.
    names = localities.unknown if record == medium.record() != {} else localities.doubtful
    if faults := list(names(answers, place)):
        raise ConfigurationError(faults)
    minimum = None if profile is None else _minimum(answers, profile, place, record)
    return Circumstances(attended=attended, test=bool(record.get("test")), minimum=minimum)


def _minimum(answers: Answers, profile: str, place: str, record: Mapping[str, Any]) -> Minimum:
    if profile == record.get("profile") and "minimum" in record and not answers.settings and not answers.environment:
        return Minimum.model_validate(record["minimum"])
    with tempfile.TemporaryDirectory(prefix="kos-install-") as folder:
        user = Path(folder) / "settings.json"
        user.write_text(json.dumps(answers.settings))
        try:
            return layers.load_deployment(CONFIGS, profile, answers.environment, user=user).minimum
        except ConfigurationError as error:
            raise ConfigurationError(_as_answered(fault, folder, place) for fault in error.faults) from None


def _as_answered(fault: Fault, folder: str, place: str) -> Fault:
    """A fault of the settings as one of the answers that they stand in."""
    if fault.place is None or not fault.place.file.startswith(folder):
        return fault
    return dataclasses.replace(fault, place=Place(place), key=f"settings.{fault.key}".removesuffix("."))
