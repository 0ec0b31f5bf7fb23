# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores on a repository of the real restic: which snapshot they take, whom they ask, and what may never be lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import (
    backup,
    files,
    gate,
    repository,
    restore,
    servicedata,
    store,
    system,
)
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root

pytestmark = [
    pytest.mark.skipif(shutil.which("restic") is None, reason="needs restic (apt-get install restic)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="changes owners"),
]
HOST = os.uname().nodename
# Debian 12's restic cannot be told how a backup chooses its parent.
OLD = shutil.which("restic") is not None and b"restic 0.14" in subprocess.check_output(["restic", "version"])


class Node:
    """Two services whose data is a file each, and the repository they are backed up to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = Root(str(folder))
        self.place = str(folder / "repository")
        self.fails: set[tuple[str, str]] = set()
        self.data = folder / "data"
        self.data.mkdir()
        self.retain(last=1)

    def retain(self, **rules: int) -> None:
        settings = {"repositories": [self.place], "retention": rules, "at_least": None, "schedule": "daily"}
        files.write_json(self.root.join(repository.SETTINGS), settings)

    def generation(self) -> store.Generation:
        rows = [
            {"name": name, "user": "nobody", "units": [], "backup": {"stopped": [], "user": None}}
            for name in ("cache", "database")
        ]
        generation = store.Generation(str(self.folder), 1, "1" * 64)
        generation.manifest = {"profile": "test", "services": rows, "packages": [], "secrets": []}
        return generation

    def command(self, service: dict, verb: str, directory: str) -> None:
        if (service["name"], verb) in self.fails:
            raise system.CommandFailed("no")
        inside, here = Path(directory) / "data", self.data / service["name"]
        if verb == "backup" and here.exists():
            inside.write_text(here.read_text())
        elif verb == "restore" and inside.exists():
            here.write_text(inside.read_text())

    def holds(self, service: dict) -> bool:
        return (self.data / service["name"]).exists()

    def restic(self, place: str, *arguments: str) -> bytes:
        if "unlock" in arguments:
            return b""
        if OLD and "backup" in arguments:
            at = arguments.index("--group-by")
            arguments = (*arguments[:at], *arguments[at + 2 :])
        argv = ["restic", "--no-cache", "--repo", place, *arguments]
        done = subprocess.run(argv, capture_output=True, env={**os.environ, "RESTIC_PASSWORD": "x"}, check=False)
        if done.returncode != 0:
            raise repository.RepositoryError(done.stderr.decode())
        return done.stdout

    def ensure(self, root: Root, place: str, like: str | None = None) -> None:
        if not os.path.isdir(place):
            self.restic(place, "init")

    def put(self, **data: str) -> None:
        for name, text in data.items():
            (self.data / name).write_text(text)

    def has(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.data.iterdir()}

    def back_up(self, tag: str = "", **data: str) -> str:
        self.put(**data)
        return str(backup.run(self.root, tag)["snapshot"])

    def ids(self) -> list[str]:
        return [row["id"] for row in repository.snapshots(self.place, HOST)]


@pytest.fixture
def node(tmp_path, monkeypatch):
    made = Node(tmp_path)
    staging, travel = str(tmp_path / "staging"), str(tmp_path / "travel")
    monkeypatch.setattr(backup, "STAGING", staging)
    monkeypatch.setattr(backup, "_STOPPED", f"{travel}/stopped.json")
    monkeypatch.setattr(backup, "_interval", lambda schedule: 86400)
    monkeypatch.setattr(backup, "_versions", lambda packages: {})
    monkeypatch.setattr(restore, "STAGING", staging)
    monkeypatch.setattr(restore, "_LAID", f"{staging}/{os.path.basename(restore._LAID)}")
    monkeypatch.setattr(repository, "USER", "nobody")
    monkeypatch.setattr(repository, "TRAVEL", travel)
    monkeypatch.setattr(repository, "restic", made.restic)
    monkeypatch.setattr(repository, "ensure", made.ensure)
    monkeypatch.setattr(system, "systemctl", lambda *arguments: None)
    monkeypatch.setattr(system, "unit_states", lambda names: {})
    monkeypatch.setattr(system, "wait_for_jobs", lambda units: list(units))
    monkeypatch.setattr(gate, "wait_healthy", lambda services, hooks: [])
    monkeypatch.setattr(store, "current", lambda root: made.generation())
    monkeypatch.setattr(servicedata, "run_command", made.command)
    monkeypatch.setattr(servicedata, "holds", made.holds)
    return made


def test_the_safety_copy_never_costs_the_snapshot_that_is_restored(node):
    old = node.back_up(database="old")
    node.put(database="new")
    report = restore.restore(node.root, old, overwrite=True)
    assert node.has()["database"] == "old"
    assert node.ids() == [old, report["safety"]]


def test_a_backup_before_a_migration_prunes_nothing(node):
    first = node.back_up(database="one")
    second = node.back_up("before-migration", database="two")
    assert node.ids() == [first, second]


def test_the_retention_counts_each_kind_of_snapshot_for_itself(node):
    node.back_up(database="one")
    safety = node.back_up("before-restore", database="two")
    third = node.back_up(database="three")
    assert node.ids() == [safety, third]


def test_partial_snapshots_go_once_there_is_a_newer_complete_one(node):
    def partial() -> str:
        node.fails = {("cache", "backup")}
        with pytest.raises(backup.Incomplete):
            backup.run(node.root)
        node.fails = set()
        return node.ids()[-1]

    whole, *_partial = node.back_up(database="one"), partial(), partial()
    repository.restic(node.place, "tag", "--set", "kos", whole)
    backup.forget(node.place, ["--keep-last=1"])
    assert len(node.ids()) == 3, "a partial one that is newer than the last complete one is all there is of its night"
    newest = node.back_up(database="two")
    assert node.ids() == [newest]


def test_the_newest_complete_snapshot_is_no_safety_copy(node):
    good = node.back_up(database="good")
    node.back_up("before-restore", database="half restored")
    assert repository.find(node.place, None)["id"] == good
    assert repository.find(node.place, "latest")["id"] == good


def test_only_safety_copies_are_no_answer(node):
    node.back_up("before-restore", database="x")
    with pytest.raises(store.Refused, match="only safety copies"):
        repository.find(node.place, None)


def test_an_ambiguous_beginning_of_an_id_is_refused(monkeypatch):
    rows = [{"id": name, "host": HOST, "tags": []} for name in ("4f2a9c1e", "4f2b0000")]
    monkeypatch.setattr(repository, "snapshots", lambda place: rows)
    with pytest.raises(store.Refused, match="several snapshots that begin with 4f2: 4f2a9c1e, 4f2b0000"):
        repository.find("/srv/b", "4f2")
    assert repository.find("/srv/b", "4f2b")["id"] == "4f2b0000"


def test_an_interrupted_restore_goes_on_with_its_own_snapshot(node):
    wanted = node.back_up(cache="old", database="old")
    node.retain(last=5)
    newer = node.back_up(cache="new", database="new")
    node.fails = {("database", "restore")}
    with pytest.raises(system.CommandFailed, match="can be run again"):
        restore.restore(node.root, wanted, overwrite=True)
    node.fails = set()
    report = restore.restore(node.root, "latest", overwrite=True)
    assert report["snapshot"]["id"] == wanted != newer
    assert node.has() == {"cache": "old", "database": "old"}


def interrupted(node, wanted, **options):
    """A restore that ends before its second service."""
    node.fails = {("database", "restore")}
    with pytest.raises(system.CommandFailed):
        restore.restore(node.root, wanted, **options)
    node.fails = set()


def test_a_resumed_restore_asks_for_what_it_had_not_touched(node):
    wanted = node.back_up(cache="old", database="old")
    node.put(cache="new", database="new")
    interrupted(node, wanted, services=["cache", "database"], overwrite=True)
    assert backup.unfinished(node.root) == {"snapshot": wanted, "services": ["cache", "database"]}
    files.write_json(node.root.state("restore.json"), {"snapshot": wanted, "services": ["cache"]})
    with pytest.raises(store.Refused, match=r"^database on this node hold data"):
        restore.restore(node.root, wanted)
    assert node.has()["database"] == "new"
    report = restore.restore(node.root, wanted, overwrite=True)
    assert (report["resumed"], report["safety"] is not None) == (True, True)
    assert node.has() == {"cache": "old", "database": "old"}
    assert backup.unfinished(node.root) is None


def test_a_restore_into_fresh_services_goes_on_without_being_asked_again(node):
    wanted = node.back_up(cache="old", database="old")
    for name in ("cache", "database"):
        (node.data / name).unlink()
    interrupted(node, wanted)
    assert restore.restore(node.root)["safety"] is None
    assert node.has() == {"cache": "old", "database": "old"}


def test_a_backup_between_asks_again_keeps_the_snapshot_and_is_not_the_newest(node):
    wanted = node.back_up(cache="old", database="old")
    node.put(cache="new", database="new")
    interrupted(node, wanted, overwrite=True)
    nightly = node.back_up(database="written since")
    assert wanted in node.ids() and nightly in node.ids()
    with pytest.raises(store.Refused, match="cache, database on this node hold data"):
        restore.restore(node.root)
    assert restore.restore(node.root, overwrite=True)["snapshot"]["id"] == wanted


def test_a_restore_that_touched_nothing_leaves_no_record(node):
    wanted = node.back_up(database="old")
    node.fails = {("cache", "backup")}
    with pytest.raises(backup.Incomplete):
        restore.restore(node.root, wanted, overwrite=True)
    assert backup.unfinished(node.root) is None


def test_backups_before_an_announced_restore_are_never_the_newest(node, monkeypatch):
    old = node.back_up(cache="old", database="old")
    with monkeypatch.context() as patch:
        patch.setattr(store, "current", lambda root: None)
        restore.announce(node.root)
    for name in ("cache", "database"):
        (node.data / name).unlink()
    empty = backup.run(node.root)["snapshot"]
    assert node.ids() == [old, empty]
    assert "a restore has not ended" in backup.findings(node.root)[0][0]
    assert restore.restore(node.root, "latest")["snapshot"]["id"] == old
    assert backup.unfinished(node.root) is None


def test_a_node_that_runs_already_announces_nothing(node):
    restore.announce(node.root)
    assert backup.unfinished(node.root) is None


@pytest.mark.parametrize("name", ["../../../etc/cron.d", "restore/../..", "", "laid-down", "a\nb"])
def test_a_manifest_that_names_a_path_is_damaged(monkeypatch, name):
    row = {"ok": True, "error": "", "digest": "0"}
    text = json.dumps({"format": backup.FORMAT, "services": {"database": row, name: row}}).encode()
    monkeypatch.setattr(restore, "_dump", lambda place, snapshot, path: text)
    with pytest.raises(restore.Damaged, match="which none can be called"):
        restore._manifest("/srv/b", "4f2a9c1e")


@pytest.mark.parametrize("at", ["first", "parent", "top", "inside"])
def test_root_follows_no_link_that_was_laid_down(node, monkeypatch, at):
    """Whoever is kos-backup may lay down what it likes; root neither moves nor changes anything outside."""
    backup.prepare_staging()
    outside = node.folder / "outside"
    inner = Path(backup.STAGING.strip("/"))
    for part in (Path(), inner, *inner.parents):
        (outside / part / "database").mkdir(parents=True, exist_ok=True)
    (outside / "database" / "theirs").write_text("root's")

    def lay(place: str, *arguments: str) -> bytes:
        laid = Path(restore._LAID)
        copies = laid / inner
        if at == "first":
            (laid / inner.parts[0]).symlink_to(outside)
        elif at == "parent":
            copies.parent.mkdir(parents=True)
            copies.symlink_to(outside)
        elif at == "top":
            copies.mkdir(parents=True)
            (copies / "database").symlink_to(outside / "database")
        else:
            (copies / "database").mkdir(parents=True)
            (copies / "database" / "theirs").symlink_to(outside / "database" / "theirs")
        return b""

    before = {path: (path.stat().st_uid, path.stat().st_mode) for path in [outside, *outside.rglob("*")]}
    monkeypatch.setattr(repository, "restic", lay)
    manifest = {"services": {"database": {"digest": "0"}}}
    with pytest.raises(restore.Damaged, match="is not what was saved" if at == "inside" else "no folder where"):
        restore._lay_down(node.place, "4f2a9c1e", manifest, ["database"])
    servicedata.hand_over(restore._LAID, "nobody")
    assert before == {path: (path.stat().st_uid, path.stat().st_mode) for path in [outside, *outside.rglob("*")]}


def test_what_restic_laid_down_is_roots_before_root_looks_at_it(node, monkeypatch):
    wanted = node.back_up(database="old")
    seen = []
    looked = servicedata.fingerprint

    def look(path: str) -> servicedata.Fingerprint:
        seen.append((os.stat(path).st_uid, os.stat(restore._LAID).st_uid))
        return looked(path)

    monkeypatch.setattr(servicedata, "fingerprint", look)
    restore._lay_down(node.place, wanted, restore._manifest(node.place, wanted), ["database"])
    assert seen == [(0, 0)]


def test_reading_a_pipe_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert files.read(str(tmp_path / "pipe")) is None
