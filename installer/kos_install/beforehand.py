# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would otherwise only fail on the wiped disk, tried before its first byte is written: room, keys, the journal."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout as names

from .actions import data, keys, unpack
from .actions.context import Context
from .actions.runner import Log, one_line, outcome, run
from .answers import Tang
from .engine import journal
from .errors import ApplyFailed
from .storage.actions import Partitioned, Plan, Table
from .storage.sizes import human

# What btrfs keeps for its own records, and a node writes on its first day.
_SPARE = 512 << 20
# A bundle is copied to the node, and installed from there.
_TIMES = 2
_PATIENCE = "20"  # seconds that a Tang server has
# fido2-token(1): `-L` has a key a line, its device first; `-I` what it can, by name.
_HMAC = re.compile(r"^extension strings:.*\bhmac-secret\b", re.MULTILINE)


def check(context: Context) -> None:
    """Nothing, where nothing speaks against beginning. Raises ApplyFailed with every reason; nothing was written."""
    faults: list[str] = []
    for part in (_journal, _room, _tang, _fido2):
        faults += part(context)
    if faults:
        raise ApplyFailed("\n".join([*faults, "nothing was written to any disk"]))


def _journal(context: Context) -> Iterator[str]:
    """What would be kept of the answers has its place in the journal."""
    try:
        journal.header(context.plan, context.answers, (), image="0" * 64)
    except ApplyFailed as error:
        yield str(error)


def _room(context: Context) -> Iterator[str]:
    if not any(action.kind == "unpack" for action in context.plan.actions):
        return
    try:
        brought = _TIMES * data.size()
    except ApplyFailed as error:
        yield str(error)
        return
    system = sum(entry.size for entry in unpack.listed(unpack.IMAGE))
    root, apart = least(context.plan, names.ROOT), least(context.plan, names.DATA)
    needs = [(root, system), (apart, brought)] if apart else [(root, system + brought)]
    for there, needed in needs:
        if there < needed + _SPARE:
            yield (
                f"this medium's system and data need {human(needed + _SPARE)} where {human(there)} are planned:"
                " take a larger disk"
            )


def least(plan: Plan, label: str) -> int:
    """Bytes of the smallest partition that a plan makes for it: a mirror holds no more. 0 where it makes none."""
    made: list[Partitioned] = [one for action in plan.actions if isinstance(action, Table) for one in action.make]
    return min((one.size for one in made if one.label in (label, label + names.SECOND)), default=0)


def _tang(context: Context) -> Iterator[str]:
    asked = context.answers.encryption.tang
    if asked and (said := _refused(asked, context.log)):
        yield (
            f"the Tang server {asked.url} does not serve this system by that thumbprint ({said}): it is asked over the"
            " network of this medium, by DHCP, whatever networks the answers have; make it answer here, or leave"
            " encryption.tang away"
        )


def _refused(tang: Tang, log: Log) -> str:
    """What clevis complains of when it asks for the server's keys and compares them; nothing where all is well."""
    asked = ["timeout", _PATIENCE, "clevis", "encrypt", "tang", keys.settings_of(tang)]
    said, code = outcome(asked, stdin="rehearsal", log=log)
    return (one_line(said) or f"no answer, {code}") if code else ""


def _fido2(context: Context) -> Iterator[str]:
    if not context.answers.encryption.fido2:
        return
    rows = run(["fido2-token", "-L"], log=context.log).splitlines()
    found = [line.partition(": ")[0] for line in rows if line.strip()]
    if len(found) != 1:
        yield f"{len(found)} FIDO2 keys are plugged in, and just one can be told: plug in that one alone"
    elif not _HMAC.search(run(["fido2-token", "-I", found[0]], log=context.log)):
        yield f"the FIDO2 key {found[0]} lacks hmac-secret, by which it would open a disk: take another key"
