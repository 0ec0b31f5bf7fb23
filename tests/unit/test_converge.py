# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's core on a root that is not booted: a plain directory."""

from __future__ import annotations

import dataclasses
import os

import pytest
from catalogues import catalogue, configs, machine, manifest
from signatures import request

from ansible_collections.kind.kos.plugins.module_utils.node import (
    files,
    join,
    rollback,
    store,
    system,
    transaction,
    trust,
)
from ansible_collections.kind.kos.plugins.module_utils.node.files import Busy, Root
from ansible_collections.kind.kos.plugins.module_utils.node.journal import Journal
from ansible_collections.kind.kos.plugins.plugin_utils import assemble

OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="writes files of other owners")


def generation(folder, text, extra=()):
    none = {"substrates": {"deb": {"packages": []}}}
    services = [
        manifest("status", tier=0, **none),
        manifest("nftables", **none),
        manifest("caddy", provides=["gateway"], **none),
        manifest(
            "db", **none, units=[{"name": "kos-db.service", "exec": "/usr/bin/db"}],
            files=[{"template": "x.j2", "path": "/etc/kos/db/db.conf", "mode": "0640"}, *extra],
        ),
    ]  # fmt: skip
    request = assemble.Request(
        "test",
        configs=configs(folder, {"services": {"database": "db"}}),
        services=catalogue(folder, *services, templates={"db/templates/x.j2": text}),
    )
    return assemble.generation(assemble.plan(request, machine()))


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "target"
    (path / "etc").mkdir(parents=True)
    (path / "etc/hostname").write_text("target\n")
    (path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (path / "etc/group").write_text("root:x:0:\n")
    return Root(str(path))


@pytest.fixture(autouse=True)
def no_sysusers(monkeypatch):
    """A plain directory has no systemd: that its users are made is shown on a node."""
    monkeypatch.setattr(system, "make_users", lambda root: None)


def deploy(root, built):
    return transaction.deploy(root, request(built), built.archive())


def read(root, path):
    with open(root.join(path), encoding="utf-8") as stream:
        return stream.read()


@needs_root
def test_a_root_that_is_not_booted_is_switched_and_stays_pending(root, tmp_path):
    built = generation(tmp_path, "host = @kos:hostname@\n")
    deploy(root, built)
    assert read(root, "/etc/kos/db/db.conf") == "host = target\n"
    assert os.stat(root.join("/etc/kos/db/db.conf")).st_mode & 0o777 == 0o640
    assert store.current(root).id == built.id
    assert files.read_json(root.state("pending"), None) == {"generation": 1}
    assert not Journal(root).open
    # Its daemon has no secrets before the first start.
    assert "ConditionPathExists=" in read(root, "/etc/systemd/system/kos-db.service.d/kos-first-start.conf")


@needs_root
def test_a_second_run_finds_nothing_to_do(root, tmp_path):
    built = generation(tmp_path, "a\n")
    deploy(root, built)
    staged = transaction.stage(root, request(built))
    assert (staged.changes, staged.token) == ([], "")


@needs_root
@pytest.mark.parametrize("damage", ["content", "mode", "gone", "link"])
def test_drift_is_seen_and_mended(root, tmp_path, damage):
    built = generation(tmp_path, "a\n")
    deploy(root, built)
    path = root.join("/etc/kos/db/db.conf")
    if damage == "content":
        with open(path, "a", encoding="utf-8") as stream:
            stream.write("drift\n")
    elif damage == "mode":
        os.chmod(path, 0o666)
    else:
        os.unlink(path)
    if damage == "link":
        os.symlink("/etc/shadow", path)
    staged, _health = deploy(root, built)
    assert [change["name"] for change in staged.changes] == ["/etc/kos/db/db.conf"]
    assert (read(root, "/etc/kos/db/db.conf"), os.path.islink(path)) == ("a\n", False)


@needs_root
def test_shrinking_removes_what_is_no_longer_asked_for(root, tmp_path):
    extra = [{"template": "x.j2", "path": "/etc/kos/db/extra.conf"}]
    deploy(root, generation(tmp_path, "a\n", extra))
    assert os.path.exists(root.join("/etc/kos/db/extra.conf"))
    deploy(root, generation(tmp_path, "a\n"))
    assert not os.path.exists(root.join("/etc/kos/db/extra.conf"))


@needs_root
def test_a_revert_brings_back_every_byte(root, tmp_path):
    old = generation(tmp_path, "old\n")
    deploy(root, old)
    before = read(root, "/etc/kos/db/db.conf")
    new = generation(tmp_path, "new\n", [{"template": "x.j2", "path": "/etc/kos/db/more.conf"}])
    staged = transaction.stage(root, request(new), new.archive())
    for part in staged.parts:
        transaction.switch(root, staged.token, part, {})
    assert read(root, "/etc/kos/db/db.conf") == "new\n"
    transaction.revert(root, staged.token)
    assert read(root, "/etc/kos/db/db.conf") == before
    assert not os.path.exists(root.join("/etc/kos/db/more.conf"))
    assert store.current(root).id == old.id


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def counted(real, left):
    """`real`, until it has been called as often as `left` allows."""

    def call(*arguments, **options):
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return real(*arguments, **options)

    return call


@needs_root
def test_killed_at_every_write_a_rerun_repairs(root, tmp_path, monkeypatch):
    """Stop the process at the first, second, third … write of a deploy; run again; the result is the same."""
    extra = [{"template": "x.j2", "path": "/etc/kos/db/extra.conf"}]
    old, new = generation(tmp_path, "old\n", extra), generation(tmp_path, "new\n")
    deploy(root, old)
    monkeypatch.setattr(transaction, "_LEASE", 0)
    real_write, real_link, real_remove = files.write, files.link, files.remove
    steps = 0
    while True:
        steps += 1
        left = [steps]

        with monkeypatch.context() as patch:
            for name, real in (("write", real_write), ("link", real_link), ("remove", real_remove)):
                patch.setattr(files, name, counted(real, left))
            try:
                deploy(root, new)
                finished = True
            except Killed:
                finished = False
        deploy(root, new)
        assert read(root, "/etc/kos/db/db.conf") == "new\n"
        assert not os.path.exists(root.join("/etc/kos/db/extra.conf"))
        assert transaction.stage(root, request(new)).changes == []
        deploy(root, old)
        if finished:
            break
    assert steps > 5


def killed_after(monkeypatch, steps, action):
    """Run `action`, killed at its `steps`-th write, link or removal; whether it came to its end before that."""
    left = [steps]
    with monkeypatch.context() as patch:
        for name in ("write", "link", "remove"):
            patch.setattr(files, name, counted(getattr(files, name), left))
        try:
            action()
        except Killed:
            return False
    return True


@needs_root
@pytest.mark.parametrize("ending", ["commit", "revert"])
def test_killed_at_every_write_of_the_end_a_rerun_repairs(root, tmp_path, monkeypatch, ending):
    """Commit and going back, each stopped at its first, second, third … write; then one run of the old generation."""
    old, new = generation(tmp_path, "old\n"), generation(tmp_path, "new\n")
    deploy(root, old)
    deploy(root, new)
    deploy(root, old)
    for steps in range(1, 50):
        staged = transaction.stage(root, request(new))
        for part in staged.parts:
            transaction.switch(root, staged.token, part, {})
        finished = killed_after(
            monkeypatch, steps, lambda staged=staged: getattr(transaction, ending)(root, staged.token)
        )
        monkeypatch.setattr(transaction, "_LEASE", 0)
        deploy(root, old)
        assert read(root, "/etc/kos/db/db.conf") == "old\n"
        assert transaction.stage(root, request(old)).changes == []
        assert not [name for _folder, _folders, names in os.walk(root.path) for name in names if "kos-new" in name]
        assert rollback.previous_number(root) == 2
        if finished:
            break
    assert finished and steps > 3


def test_a_tampered_stored_generation_is_not_used(root, tmp_path):
    built = generation(tmp_path, "a\n")
    trust.enrol(root, request(built).signer)
    stored = store.add(root, built.archive(), built.id, "")
    with open(os.path.join(stored.path, "tree/etc/kos/db/db.conf"), "a", encoding="utf-8") as stream:
        stream.write("evil\n")
    assert store.find(root, built.id) is None
    with pytest.raises(transaction.NeedArchive):
        transaction.stage(root, request(built))


def test_two_at_once_the_second_says_so(root, tmp_path):
    built = generation(tmp_path, "a\n")
    with files.lock(root), pytest.raises(Busy, match="another kOS run"):
        transaction.stage(root, request(built), built.archive(), patience=0)


def test_a_run_that_was_overtaken_is_told(root, tmp_path):
    built = generation(tmp_path, "a\n")
    first = transaction.stage(root, request(built), built.archive())
    transaction.stage(root, request(built))
    with pytest.raises(transaction.Superseded, match="run again"):
        transaction.switch(root, first.token, first.parts[0], {})


def test_check_changes_nothing(root, tmp_path):
    built = generation(tmp_path, "a\n")
    before = sorted(os.walk(root.path))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    staged = transaction.check(root, request(built), built.archive(), str(scratch))
    assert ("file", "/etc/kos/db/db.conf", "create") in [
        (change["kind"], change["name"], change["action"]) for change in staged.changes
    ]
    assert sorted(os.walk(root.path)) == before


def test_old_generations_are_pruned_but_not_the_current_or_pinned(root, tmp_path):
    for number in range(8):
        built = generation(tmp_path, f"{number}\n")
        store.add(root, built.archive(), built.id, "")
    store.point_current(root, 2)
    files.write(root.state("generations", "1", "pinned"), b"")
    assert store.prune(root) == [3]
    assert [row["number"] for row in store.listing(root)] == [1, 2, 4, 5, 6, 7, 8]


def test_secrets_are_joined_into_sealed_files_only(root):
    joiner = join.Joiner(root, lambda name: "s3cret")
    assert joiner.join(b"p=@kos:secret:db.password@", sealed=True) == b"p=s3cret"
    with pytest.raises(join.UnknownToken, match="sealed files only"):
        joiner.join(b"p=@kos:secret:db.password@")


def test_tokens_of_this_machine(root):
    joiner = join.Joiner(root)
    assert joiner.join(b"@kos:hostname@ @kos:memory:25%:1:7@") == b"target 7"
    with pytest.raises(join.UnknownToken, match="@kos:nonsense@"):
        joiner.join(b"@kos:nonsense@")


def snapshot(root):
    return sorted((folder, sorted(names)) for folder, _folders, names in os.walk(root.path))


@needs_root
@pytest.mark.parametrize("damage", ["unsigned", "stranger", "flipped bit"])
def test_what_is_not_rightly_signed_is_refused_before_anything_changes(root, tmp_path, damage):
    deploy(root, generation(tmp_path, "old\n"))
    new = generation(tmp_path, "new\n")
    asked, archive = request(new), new.archive()
    if damage == "unsigned":
        asked = dataclasses.replace(asked, signature="")
    elif damage == "stranger":
        trust.add(root, "other", OTHER_KEY)
        trust.remove(root, next(row["name"] for row in trust.listing(root) if row["key"] != OTHER_KEY))
    else:
        tree = {**new.files, "tree/etc/kos/db/db.conf": b"nex\n"}
        archive = dataclasses.replace(new, files=tree).archive()
    before = snapshot(root)
    with pytest.raises((trust.Untrusted, store.Refused)):
        transaction.stage(root, asked, archive)
    assert snapshot(root) == before
    assert read(root, "/etc/kos/db/db.conf") == "old\n"


@needs_root
def test_going_back_needs_a_signer_who_is_trusted_still(root, tmp_path):
    deploy(root, generation(tmp_path, "old\n"))
    deploy(root, generation(tmp_path, "new\n"))
    trust.add(root, "other", OTHER_KEY)
    trust.remove(root, next(row["name"] for row in trust.listing(root) if row["key"] != OTHER_KEY))
    with pytest.raises(trust.Untrusted, match="does not trust"):
        rollback.rollback(root, 1)
    assert read(root, "/etc/kos/db/db.conf") == "new\n"


@needs_root
def test_what_a_killed_writer_left_goes_with_the_next_run(root, tmp_path):
    built = generation(tmp_path, "a\n")
    deploy(root, built)
    left = root.state("ledger.json.kos-new")
    files.write(left, b"")
    assert transaction.stage(root, request(built)).changes == []
    assert not os.path.exists(left)
