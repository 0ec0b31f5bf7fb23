# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a migration keeps, and what its purge may delete."""

from __future__ import annotations

import shutil

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import files, migrate, store
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root


@pytest.fixture
def root(tmp_path, monkeypatch):
    made = Root(str(tmp_path))
    generation = store.Generation(str(tmp_path / "none"), 1, "1" * 64)
    generation.manifest = {
        "services": [{"name": "db", "user": "kos-shared"}],
        "volumes": [
            {"path": "/var/lib/kos-db", "service": "db", "user": "kos-shared"},
            {"path": "/var/lib/kos-db-wal", "service": "db", "user": "kos-shared"},
            {"path": "/var/lib/kos-web/uploads", "service": "web", "user": "kos-web"},
        ],
    }
    monkeypatch.setattr(store, "current", lambda root: generation)
    return made


def begun(root, kept):
    files.write_json(root.state("migration.json"), {"phase": "done", "kept": kept})
    for path in [*(path for paths in kept.values() for path in paths), migrate.EXPORT]:
        files.write(root.join(f"{path}/data"), b"x")


def test_the_volumes_of_a_service_are_those_of_its_generation(root):
    volumes = migrate._volumes(store.current(root), "db")
    assert volumes == ["/var/lib/kos-db", "/var/lib/kos-db-wal"]


def test_a_purge_spares_what_the_target_uses(root):
    begun(root, {"old": ["/var/lib/kos-old"], "db": ["/var/lib/kos-db"], "web": ["/var/lib/kos-web"]})
    assert migrate.purge(root) == {"removed": ["/var/lib/kos-old"]}
    assert files.read(root.join("/var/lib/kos-db/data")) and files.read(root.join("/var/lib/kos-web/data"))
    assert files.read(root.join("/var/lib/kos-old/data")) is None
    assert migrate.journal(root) == {}


def test_a_purge_that_cannot_delete_says_so_and_can_be_run_again(root, monkeypatch):
    begun(root, {"old": ["/var/lib/kos-old"]})
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        with pytest.raises(PermissionError):
            migrate.purge(root)
    assert migrate.purge(root) == {"removed": ["/var/lib/kos-old"]}


def refuse(path, ignore_errors=False):
    if not ignore_errors:
        raise PermissionError(1, "Operation not permitted", path)
