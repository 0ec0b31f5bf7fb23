# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups: what the profile asks for, what restic is told, and what its failures mean."""

from __future__ import annotations

import os

import catalogues
import pytest
from catalogues import ROOT, manifest

from ansible_collections.kind.kos.plugins.module_utils.node import backup, files, repository, servicedata, store, system
from ansible_collections.kind.kos.plugins.module_utils.node.files import Busy, Root
from ansible_collections.kind.kos.plugins.plugin_utils.catalogue import load_catalogue
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError
from ansible_collections.kind.kos.plugins.plugin_utils.profile import Backup
from ansible_collections.kind.kos.plugins.plugin_utils.units import unit_text

RESTIC = manifest("restic", provides=["backup"])


def plan(folder, settings):
    return catalogues.plan(folder, {"backup": settings}, RESTIC).plan


def test_a_repository_asks_for_backups(tmp_path):
    planned = plan(tmp_path, {"repository": ["sftp:kos@vault:/node1", "/srv/backup"], "retention": "90d"})
    assert "restic" in [service.name for service in planned.services]
    assert planned.not_acted_on == []


def test_without_a_repository_the_plan_says_what_to_set(tmp_path):
    planned = plan(tmp_path, {"strategy": "multi_region", "encryption": "required", "retention": "policy_based"})
    assert [(row.capability, row.requested) for row in planned.unavailable] == [("backup", "restic")]
    assert "set backup.repository" in planned.unavailable[0].why


def test_backups_can_be_switched_off(tmp_path):
    planned = plan(tmp_path, {"enabled": False, "repository": "/srv/backup"})
    assert "restic" not in [service.name for service in planned.services]


@pytest.mark.parametrize(
    "place",
    [
        "backup",
        "/home/me/backup",
        "/tmp/backup",
        "/srv/../etc",
        "sftp:kos@vault:/a b",
        "s3:https://k:s@host/b\nX=1",
        "ftp:x",
        "/",
        "/etc",
        "//etc",
        "//etc//kos",
        "/./etc/kos",
        "/srv/a/../..",
        "/var/lib",
        "/var/lib/kos/staging",
        "/usr",
        "s3:https://key:secret@host/bucket",
        "sftp:kos:secret@vault:/node1",
        "sftp://kos:secret@vault/node1",
    ],
)
def test_a_repository_that_cannot_work_is_refused_on_the_laptop(tmp_path, place):
    with pytest.raises(ConfigurationError, match=r"backup\.repository"):
        plan(tmp_path, {"repository": place})


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("/srv//backup/", "/srv/backup"),
        ("//srv/backup", "/srv/backup"),
        ("/srv/a/../backup", "/srv/backup"),
        ("/etcetera/backup", "/etcetera/backup"),
        ("sftp:kos@vault:/node1", "sftp:kos@vault:/node1"),
        ("sftp://kos@vault:2222//srv/node1", "sftp://kos@vault:2222//srv/node1"),
        ("s3:https://s3.example:9000/bucket/path", "s3:https://s3.example:9000/bucket/path"),
    ],
)
def test_a_repository_has_one_name(given, place):
    assert Backup.model_validate({"repository": given}).repository == place


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder_is_never_replaced_by_a_repository(tmp_path, kind):
    place = tmp_path / "disk"
    if kind == "file":
        place.write_text("an image of a disk")
    else:
        place.symlink_to(tmp_path / "not-mounted")
    with pytest.raises(repository.RepositoryError, match="is no folder, and is not replaced"):
        repository._make_folder(str(place))
    assert os.path.lexists(place)


@pytest.mark.parametrize("schedule", ["daily\nExecStart=/bin/sh", "%h", "$(id)"])
def test_a_schedule_is_a_calendar_and_nothing_else(tmp_path, schedule):
    with pytest.raises(ConfigurationError, match=r"backup\.schedule"):
        plan(tmp_path, {"repository": "/srv/backup", "schedule": schedule})


@pytest.mark.parametrize(
    ("retention", "at_least", "expected"),
    [
        (
            "policy_based", None,
            ["--keep-last=3", "--keep-daily=7", "--keep-weekly=5", "--keep-monthly=12", "--keep-yearly=3"],
        ),
        ("90d", None, ["--keep-within=90d", "--keep-last=1"]),
        ("2w", "7y", ["--keep-within=14d", "--keep-last=1", "--keep-within=7y"]),
        ("30m", None, ["--keep-within=1h", "--keep-last=1"]),
        ({"last": 4, "daily": 2}, None, ["--keep-last=4", "--keep-daily=2"]),
    ],
)  # fmt: skip
def test_retention_as_restic_knows_it(retention, at_least, expected):
    assert repository.keep_arguments(retention, at_least) == expected


@pytest.mark.parametrize(
    ("place", "code", "said", "sentence"),
    [
        ("/srv/b", 10, "Fatal: repository does not exist", "there is no repository at /srv/b"),
        ("/srv/b", 12, '{"message_type":"exit_error","message":"Fatal: wrong password"}', "does not open /srv/b"),
        ("/srv/b", 11, "repo already locked, waiting up to 0s for the lock", "in use by another machine"),
        ("/srv/b", 1, "Save(<data/1>) failed: write /srv/b/x: no space left on device", "/srv/b is full"),
        ("sftp:a@b:/c", 1, "ssh: connect to host b: Connection refused\nFatal: unable to open", "cannot be reached"),
        ("s3:https://h/b", 1, "Fatal: Stat: The Access Key Id you provided does not exist", "Access Key Id"),
        ("/srv/b", 1, "", "journalctl -u kos-restic"),
    ],
)  # fmt: skip
def test_each_failure_of_restic_is_a_sentence(place, code, said, sentence):
    error = repository._explained(place, code, said)
    assert sentence in str(error)
    assert error.missing == (code == 10)


def test_a_fingerprint_changes_with_content_names_and_links_only(tmp_path):
    folder = tmp_path / "copy"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_text("one")
    (folder / "link").symlink_to("sub/a")
    before = servicedata.fingerprint(str(folder))
    assert (before.files, before.bytes) == (2, 3)
    os.utime(folder / "sub" / "a", (1, 1))
    (folder / "sub" / "a").chmod(0o600)
    assert servicedata.fingerprint(str(folder)) == before
    (folder / "sub" / "a").write_text("onE")
    changed = servicedata.fingerprint(str(folder))
    assert changed != before
    (folder / "sub" / "a").rename(folder / "sub" / "b")
    assert servicedata.fingerprint(str(folder)) != changed


@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")
def test_handing_over_follows_no_link(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("not yours")
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "file").write_text("yours")
    (folder / "link").symlink_to(outside)
    servicedata.hand_over(str(folder), "nobody")
    assert outside.stat().st_uid == 0
    assert {path.lstat().st_uid for path in (folder, folder / "file", folder / "link")} != {0}
    assert (folder / "file").lstat().st_uid != 0


def test_no_room_is_said_before_anything_is_copied(monkeypatch):
    monkeypatch.setattr(backup, "_size", lambda path: 10 * 2**30)
    monkeypatch.setattr(backup.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2**30})())
    with pytest.raises(store.Refused, match=r"10496 MB .* 1024 MB are free"):
        backup._check_space([{"user": "kos-db", "backup": {}}])


def test_a_change_under_way_is_waited_for_and_then_said(tmp_path):
    root = Root(str(tmp_path))
    with files.lock(root), pytest.raises(Busy, match="another kOS run"), backup._undisturbed(root, patience=0):
        pytest.fail("it did not wait")


def test_a_node_without_backups_says_how_to_get_them(tmp_path):
    with pytest.raises(store.Refused, match=r"set backup\.repository"):
        repository.settings(Root(str(tmp_path)))
    assert backup.state(Root(str(tmp_path))) is None
    assert backup.findings(Root(str(tmp_path))) == []


@pytest.mark.parametrize(
    ("record", "exported", "words"),
    [
        ({}, None, ["no backup has been made", "exists on this node only"]),
        ({"last": {"ok": False, "time": 1, "error": "full"}, "interval": 86400}, 5, ["failed: full", "older than two"]),
        ({"last": {"ok": True, "time": 1, "error": ""}, "last_success": 1, "interval": 86400}, 5, ["older than two"]),
    ],
)
def test_the_doctor_names_what_is_wrong_with_backups(tmp_path, record, exported, words):
    root = Root(str(tmp_path))
    files.write_json(root.join(repository.SETTINGS), {})
    files.write_json(root.state("backup.json"), record)
    if exported:
        files.write_json(root.state("backup-key.json"), exported)
    found = backup.findings(root)
    assert len(found) == len(words)
    assert all(word in problem for word, (problem, _fix) in zip(words, found, strict=True))
    assert all(fix.startswith("kai backup") for _problem, fix in found)


def test_the_timer_is_a_timer_and_what_it_starts_waits_for_it():
    catalogue = load_catalogue(ROOT / "services")
    restic = catalogue.services["restic"]
    texts = {unit.name: unit_text(unit, restic, catalogue) for unit in restic.units}
    assert "[Service]" not in texts["kos-backup.timer"] and "Persistent=yes" in texts["kos-backup.timer"]
    assert "WantedBy=timers.target" in texts["kos-backup.timer"]
    for name in ("kos-backup.service", "kos-restic.service"):
        assert "[Install]" not in texts[name]
    assert "User=kos-backup" in texts["kos-restic.service"]


def test_a_restore_waits_until_systemd_has_nothing_left_to_do(monkeypatch):
    """systemctl show names a unit's job as long as there is one."""
    answers = iter([{"a": {"Id": "a"}, "b": {"Id": "b", "Job": "7"}}, {"a": {"Id": "a"}, "b": {"Id": "b"}}])
    asked = []
    monkeypatch.setattr(system.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(system, "unit_states", lambda names, _shown: asked.append(list(names)) or next(answers))
    system.wait_for_jobs(name for name in ("a", "b"))
    assert asked == [["a", "b"]] * 2
