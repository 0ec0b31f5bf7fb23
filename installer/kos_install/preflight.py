# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan must know that is neither answered nor hardware: the profile's minimum, and what the medium is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ansible_collections.kind.kos.plugins.plugin_utils import assemble
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError, Fault, Place
from ansible_collections.kind.kos.plugins.plugin_utils.profile import Minimum

from . import localities, medium, resolving
from .answers import Answers
from .hardware.facts import facts
from .hardware.model import Machine
from .storage.plan import Circumstances


def circumstances(
    answers: Answers,
    machine: Machine,
    attended: bool,
    place: str = "answers",
    record: Mapping[str, Any] | None = None,
) -> Circumstances:
    """With the whole configuration resolved once: what is wrong in it must not come out on a half installed disk.

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
    minimum = None if profile is None else _minimum(answers, machine, profile, place, record)
    return Circumstances(attended=attended, test=bool(record.get("test")), minimum=minimum, profile=profile or "")


def _minimum(answers: Answers, machine: Machine, profile: str, place: str, record: Mapping[str, Any]) -> Minimum:
    if profile == record.get("profile") and "minimum" in record and not answers.settings and not answers.environment:
        # It was resolved when the medium was made.
        return Minimum.model_validate(record["minimum"])
    try:
        # How large the disk is changes no plan.
        planned = resolving.planned(profile, answers.environment, answers.settings, facts(machine, disk_gb=0))
        assemble.generation(planned)
    except ConfigurationError as error:
        raise ConfigurationError(_placed(fault, place) for fault in error.faults) from None
    return planned.plan.deployment.minimum


def _placed(fault: Fault, place: str) -> Fault:
    """A fault of the answers with the name of their file."""
    return dataclasses.replace(fault, place=Place(place)) if fault.place == resolving.ANSWERS else fault
