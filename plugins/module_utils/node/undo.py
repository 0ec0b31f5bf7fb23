# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take an open transaction back: packages, files, systemd units, as the journal remembers them."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Any

from . import (
    accounts,
    bundle,
    changes,
    cleanup,
    daemons,
    farewell,
    files,
    firststart,
    gate,
    history,
    images,
    ledger,
    originals,
    packages,
    settings,
    store,
    system,
)
from .apply import HOST_KEY
from .deadline import disarm
from .encryption import holding
from .files import Root
from .gate import Health
from .journal import Journal


def take_back(root: Root, journal: Journal) -> list[Health]:
    """Undo the open transaction; safe to repeat after a crash. Returns the old generation's health."""
    journal.free_reserve()
    journal.write("reverting")
    begin = journal.begin
    noted = [record for record in journal.records if record["op"] == "unit"]
    if root.booted:
        stopped = [record["name"] for record in noted if not record["active"]]
        leaving = _leaving(root, journal, stopped)
        farewell.run_exit_hooks(leaving)
        system.stop(stopped)
        farewell.clear_away(root, leaving, "the change that brought it was taken back")
        for name in stopped:
            files.remove(changes.stamp_path(root, name))
            files.remove(changes.live_path(root, name))
    # Packages go while Debian's own units are still masked.
    made = [path for record in journal.of("packages_made") for path in record["paths"]]
    for record in journal.of("packages"):
        packages.purge(root, record["added"], record["configured"], made)
    for record in reversed(journal.of("file")):
        journal.restore(root, record)
    _remove_what_was_new(root, journal)
    originals.drop_own_directories(root)
    store.point_current(root, begin["previous"])
    previous = store.current(root)
    cleanup.drop_timer_stamps(root, previous.manifest if previous else None)
    health: list[Health] = []
    if root.booted:
        settings.take_back(root, journal)
        daemons.take_back(root, journal, previous)
        health = _restart_previous(root, noted, begin.get("sick", []))
        firststart.end(root)
    if journal.switched:
        history.record(
            root, begin["generation"], begin["id"], "reverted", begin.get("alternative", ""), begin.get("time")
        )
    journal.close()
    disarm(root)
    if not begin.get("alternative"):
        bundle.forget(root)
    return health


def _leaving(root: Root, journal: Journal, stopped: list[str]) -> list[dict[str, Any]]:
    """The services that only the transaction brought and that it has begun to start."""
    begin = journal.begin
    made = store.load(root, begin["generation"], begin.get("alternative", ""))
    before = store.load(root, begin["previous"] or 0, begin.get("previous_alternative", ""))
    new = farewell.gone(made.manifest if made else None, before.manifest if before else None)
    return [row for row in new if row["units"] and set(row["units"]) & set(stopped)]


def _remove_what_was_new(root: Root, journal: Journal) -> None:
    """Take away the data volumes, accounts and key that this transaction alone has made."""
    for record in journal.of("volumes"):
        for path in record["absent"]:
            holding.release(root, path)
            shutil.rmtree(root.join(path), ignore_errors=True)
    previous = store.load(root, journal.begin["previous"] or 0)
    images.drop([root.join(path) for path in images.leftovers(root, previous.manifest if previous else None)])
    # The runtime's package left it to us, and we were in it: nobody else has it empty.
    with contextlib.suppress(OSError):
        os.rmdir(root.join(changes.QUADLETS))
    for record in journal.of("accounts"):
        made = next(iter(journal.of("accounts_made")), None) or accounts.made_since(root, record)
        accounts.remove(root, made["users"], made["groups"])
    if journal.has("host_key") and not ledger.load(root).host_key:
        files.remove(root.join(HOST_KEY))


def _restart_previous(root: Root, noted: list[dict[str, Any]], sick: list[str]) -> list[Health]:
    """Bring back the units that ran before, with the files they had; what was `sick` before is not waited for."""
    running = [record["name"] for record in noted if record["active"]]
    for name in running:
        files.remove(changes.stamp_path(root, name))
    system.run(["systemctl", "daemon-reload"], check=False)
    # What failed without a file any more would be listed as failed until the next start of the machine.
    system.systemctl("reset-failed", [record["name"] for record in noted])
    previous = store.current(root)
    rows = previous.manifest["units"] if previous else []
    # A firewall is loaded anew; restarting it would open the node for a moment.
    reloaded = [
        row["name"] for row in rows if row["oneshot"] and row["on_change"] == "reload" and row["name"] in running
    ]
    system.systemctl("reload", reloaded)
    system.systemctl("restart", [name for name in running if name not in reloaded], "--no-block")
    if previous is None:
        return []
    comparison = changes.compare(root, previous, {})
    for name in running:
        if name in comparison.inputs:
            files.write(changes.stamp_path(root, name), comparison.inputs[name].encode())
    health = gate.wait_healthy([row for row in previous.manifest["services"] if row["name"] not in sick])
    for row in rows:
        if row["name"] in running and (digest := changes.live_digest(row)) is not None:
            files.write(changes.live_path(root, row["name"]), digest)
    return health
