# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kOS owns, what was there before it, and how both end: on a plain directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from catalogues import catalogue, configs, machine, manifest
from signatures import request

from ansible_collections.kind.kos.plugins.module_utils.node import (
    accounts,
    cleanup,
    files,
    ledger,
    main,
    packages,
    store,
    system,
    transaction,
    uninstall,
)
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.packages import Package
from ansible_collections.kind.kos.plugins.plugin_utils import assemble

ROOT = Path(__file__).resolve().parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="writes files of other owners")
THEIRS = "/etc/db.conf"


def generation(folder, *extra, text="ours\n", path=THEIRS):
    none = {"substrates": {"deb": {"packages": []}}}
    unit = {"name": "kos-db.service", "exec": "/usr/bin/db", "state_directory": "kos-db"}
    services = [
        manifest("status", tier=0, **none),
        manifest("nftables", **none),
        manifest("caddy", provides=["gateway"], **none),
        manifest("db", **none, user="kos-db", units=[unit], files=[{"template": "x.j2", "path": path}, *extra]),
    ]  # fmt: skip
    asked = assemble.Request(
        "test",
        configs=configs(folder, {"services": {"database": "db"}}),
        services=catalogue(folder, *services, templates={"db/templates/x.j2": text}),
    )
    return assemble.generation(assemble.plan(asked, machine()))


@pytest.fixture
def root(tmp_path):
    """A machine with a file of its owner's where kOS will write, of an unusual mode and owner."""
    path = tmp_path / "target"
    (path / "etc").mkdir(parents=True)
    (path / "var/lib").mkdir(parents=True)
    (path / "etc/hostname").write_text("target\n")
    (path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (path / "etc/group").write_text("root:x:0:\n")
    theirs = path / "etc/db.conf"
    theirs.write_text("theirs\n")
    if os.geteuid() == 0:
        os.chown(theirs, 1234, 4321)
    os.chmod(theirs, 0o4640)
    os.utime(theirs, ns=(1_000_000_000, 1_000_000_000))
    return Root(str(path))


@pytest.fixture(autouse=True)
def no_sysusers(monkeypatch):
    """A plain directory has no systemd: that its users are made and removed is shown on a node."""
    monkeypatch.setattr(system, "make_users", lambda root: None)


def deploy(root, built, **more):
    return transaction.deploy(root, request(built, **more), built.archive())[0]


def described(root):
    """Every path with all that must be the same again."""
    found = {}
    for folder, folders, names in os.walk(root.path):
        for name in [*folders, *names]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content = files.read(path) if stat.S_ISREG(status.st_mode) else None
            when = status.st_mtime_ns if content is not None else 0
            found[path] = (status.st_mode, status.st_uid, status.st_gid, when, content)
    return found


def fill(root, path="/var/lib/kos-db"):
    os.makedirs(root.join(path))
    files.write(root.join(f"{path}/rows"), b"precious\n")


@needs_root
def test_uninstall_leaves_the_tree_as_it_was(root, tmp_path):
    before = described(root)
    deploy(root, generation(tmp_path, {"template": "x.j2", "path": "/etc/deep/er/db.conf"}))
    assert described(root) != before
    assert uninstall.uninstall(root) == {"removed": True, "kept": [], "left": []}
    assert described(root) == before


@needs_root
def test_originals_are_for_root_alone_and_survive_many_generations(root, tmp_path):
    before = described(root)
    for number in range(7):
        deploy(root, generation(tmp_path, text=f"{number}\n"))
    folder = root.state(ledger.ORIGINALS)
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert [stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(folder)] == [0o600]
    uninstall.uninstall(root)
    assert described(root) == before


@needs_root
def test_a_file_that_is_no_longer_asked_for_gives_way_to_what_was_there(root, tmp_path):
    before = described(root)[root.join(THEIRS)]
    deploy(root, generation(tmp_path))
    deploy(root, generation(tmp_path, path="/etc/elsewhere/db.conf"))
    assert described(root)[root.join(THEIRS)] == before
    assert ledger.load(root).originals == {}
    assert not os.path.exists(root.state(ledger.ORIGINALS))
    deploy(root, generation(tmp_path))
    assert not os.path.exists(root.join("/etc/elsewhere"))


@needs_root
def test_a_revert_of_the_first_deploy_leaves_no_file_directory_or_volume(root, tmp_path):
    before = described(root)
    built = generation(tmp_path, {"template": "x.j2", "path": "/etc/deep/er/db.conf"})
    staged = transaction.stage(root, request(built), built.archive())
    for part in staged.parts:
        transaction.switch(root, staged.token, part, {})
    fill(root)
    transaction.revert(root, staged.token)
    after = described(root)
    assert {path: row for path, row in after.items() if not path.startswith(root.state())} == before


@needs_root
def test_a_revert_keeps_the_volume_that_was_there_before_its_run(root, tmp_path):
    deploy(root, generation(tmp_path))
    fill(root)
    built = generation(tmp_path, text="new\n")
    staged = transaction.stage(root, request(built), built.archive())
    transaction.switch(root, staged.token, staged.parts[0], {})
    transaction.revert(root, staged.token)
    assert files.read(root.join("/var/lib/kos-db/rows")) == b"precious\n"


def without_db(folder):
    none = {"substrates": {"deb": {"packages": []}}}
    core = [manifest("status", tier=0, **none), manifest("nftables", **none)]
    core.append(manifest("caddy", provides=["gateway"], **none))
    asked = assemble.Request("test", configs=configs(folder, {}), services=catalogue(folder, *core))
    return assemble.generation(assemble.plan(asked, machine()))


@needs_root
def test_data_outlives_its_service_until_purged(root, tmp_path):
    deploy(root, generation(tmp_path))
    fill(root)
    smaller = without_db(tmp_path)
    assert not [change for change in deploy(root, smaller).changes if change["kind"] == "volume"]
    assert [row["path"] for row in ledger.kept_volumes(root, ledger.load(root), smaller.manifest)] == [
        "/var/lib/kos-db"
    ]
    assert deploy(root, smaller).changes == []
    purged = deploy(root, smaller, purge=True)
    assert [(change["kind"], change["name"]) for change in purged.changes] == [("volume", "/var/lib/kos-db")]
    assert not os.path.exists(root.join("/var/lib/kos-db"))
    assert ledger.load(root).volumes == []


@needs_root
def test_an_empty_volume_goes_with_its_service(root, tmp_path):
    deploy(root, generation(tmp_path))
    os.makedirs(root.join("/var/lib/kos-db"))
    deploy(root, without_db(tmp_path))
    assert not os.path.exists(root.join("/var/lib/kos-db"))


@needs_root
def test_uninstall_keeps_data_with_a_list_and_a_later_purge_ends_it(root, tmp_path):
    before = described(root)
    deploy(root, generation(tmp_path))
    fill(root)
    assert uninstall.uninstall(root)["kept"] == ["/var/lib/kos-db"]
    assert sorted(os.listdir(root.state())) == ["KEPT", "ledger.json", "lock"]
    assert b"/var/lib/kos-db  (user kos-db, service db)" in (files.read(root.state("KEPT")) or b"")
    assert files.read(root.join("/var/lib/kos-db/rows")) == b"precious\n"
    assert uninstall.uninstall(root, purge=True)["kept"] == []
    assert described(root) == before


@needs_root
def test_a_deploy_takes_kept_data_up_again(root, tmp_path):
    built = generation(tmp_path)
    deploy(root, built)
    fill(root)
    uninstall.uninstall(root)
    deploy(root, built)
    assert not os.path.exists(root.state("KEPT"))
    assert ledger.kept_volumes(root, ledger.load(root), built.manifest) == []
    assert files.read(root.join("/var/lib/kos-db/rows")) == b"precious\n"


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


@needs_root
def test_an_uninstall_killed_at_any_write_is_finished_by_the_next(root, tmp_path, monkeypatch):
    before = described(root)
    built = generation(tmp_path, {"template": "x.j2", "path": "/etc/deep/er/db.conf"})
    reals = {name: getattr(files, name) for name in ("write", "link", "remove", "sync_directory")}
    steps, finished = 0, False
    while not finished:
        steps += 1
        deploy(root, built)
        fill(root)
        left = [steps]

        def call(name, *arguments, left=left, **options):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return reals[name](*arguments, **options)

        with monkeypatch.context() as patch:
            for name in reals:
                patch.setattr(files, name, lambda *a, name=name, call=call, **o: call(name, *a, **o))
            try:
                uninstall.uninstall(root, purge=True)
                finished = True
            except Killed:
                pass
        uninstall.uninstall(root, purge=True)
        assert described(root) == before
    assert steps > 10


@needs_root
@pytest.mark.parametrize("resume", ["boot", "run"])
def test_a_clean_up_killed_after_the_commit_is_resumed(root, tmp_path, monkeypatch, resume):
    deploy(root, generation(tmp_path))
    os.makedirs(root.join("/var/lib/kos-db"))
    smaller = without_db(tmp_path)

    def killed(*_arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(packages, "purge", killed)
        with pytest.raises(Killed):
            deploy(root, smaller)
    assert os.path.exists(root.join("/var/lib/kos-db"))
    assert store.current(root).id == smaller.id
    if resume == "boot":
        files.remove(root.state("pending"))
        assert main.main(["--root", root.path, "boot"]) == 0
    else:
        assert [change["name"] for change in deploy(root, smaller).changes] == ["/var/lib/kos-db"]
    assert not os.path.exists(root.join("/var/lib/kos-db"))
    assert deploy(root, smaller).changes == []


def test_where_kos_never_was_uninstall_does_nothing(root):
    before = described(root)
    assert not uninstall.uninstall(root, purge=True)["removed"]
    assert described(root) == before


def package(name, *depends, provides=(), status="installed"):
    return Package(name, status, frozenset(provides), tuple(frozenset(clause) for clause in depends))


def known(*rows):
    return {row.name: row for row in rows}


def test_a_dependency_stays_while_anything_that_stays_needs_it():
    rows = known(
        package("prometheus", ["libc"], ["fonts"]), package("nats", ["libc"], ["libnats"]), package("libnats"),
        package("fonts"), package("libc"),
    )  # fmt: skip
    ours = ["prometheus", "nats", "libnats", "fonts"]
    assert packages.no_longer_needed(rows, ours, ["prometheus"]) == {"nats", "libnats"}
    assert packages.no_longer_needed(rows, ours, []) == set(ours)


def test_a_package_of_somebody_else_keeps_what_it_needs():
    rows = known(package("nats", ["libnats"]), package("libnats", ["deep"]), package("deep"), package("x", ["libnats"]))
    assert packages.no_longer_needed(rows, ["nats", "libnats", "deep"], []) == {"nats"}


def test_an_alternative_that_stays_is_enough():
    rows = known(
        package("x", ["mail", "exim"]), package("exim", provides=["mail"]), package("postfix", provides=["mail"])
    )
    assert packages.no_longer_needed(rows, ["exim"], []) == {"exim"}
    assert packages.no_longer_needed(rows, ["exim", "postfix"], []) == set()


def test_configuration_of_a_removed_package_goes_too_and_needs_nothing():
    rows = known(package("nats", ["libnats"], status="config-files"), package("libnats"))
    assert packages.no_longer_needed(rows, ["nats", "libnats"], []) == {"nats", "libnats"}


def test_who_asks_apt_for_a_package_takes_it_over(root):
    os.makedirs(root.join("/var/lib/apt"))
    states = "Package: nats\nArchitecture: amd64\nAuto-Installed: 1\n\nPackage: caddy\nAuto-Installed: 0\n\n"
    files.write(root.join("/var/lib/apt/extended_states"), states.encode())
    assert packages.marked_manual(root, ["nats", "caddy", "other"]) == {"caddy", "other"}


def test_a_package_whose_removal_would_delete_the_data_of_others_stays_and_is_named(root, monkeypatch):
    installed = known(package("postgresql-17", ["libpq"]), package("libpq"), package("valkey-server"))
    monkeypatch.setattr(packages, "table", lambda root: dict(installed))
    monkeypatch.setattr(packages, "marked_manual", lambda root, names: set())
    gone = []

    def purge(root, names, configured, made):
        gone.extend(names)
        for name in names:
            installed.pop(name)

    monkeypatch.setattr(packages, "purge", purge)
    os.makedirs(root.join("/var/lib/valkey/empty"))
    os.makedirs(root.join("/etc/postgresql/17/theirs"))
    cluster = root.join("/etc/postgresql/17/theirs/postgresql.conf")
    files.write(cluster, b"port = 5433\n")
    ledger.save(root, ledger.Ledger(packages=["postgresql-17", "libpq", "valkey-server"]))
    (sentence,) = cleanup.run(root, None)
    assert "postgresql-17: stays" in sentence and "/etc/postgresql/17" in sentence and "apt-mark manual" in sentence
    assert gone == ["valkey-server"]
    assert sorted(ledger.load(root).packages) == ["libpq", "postgresql-17"]
    files.remove(cluster)
    assert cleanup.run(root, None) == []
    assert gone == ["valkey-server", "libpq", "postgresql-17"]


def test_the_guarded_packages_are_the_catalogues():
    manifests = [yaml.safe_load(path.read_text()) for path in (ROOT / "services").glob("*/service.yaml")]
    asked = {name for row in manifests for name in (row["substrates"].get("deb") or {}).get("packages", [])}
    assert set(packages._DATA) <= asked


@needs_root
def test_purging_asks_for_the_key_of_backups_that_nothing_else_can_read(root, tmp_path):
    before = described(root)
    deploy(root, generation(tmp_path))
    fill(root)
    files.write(root.state("secrets", "restic.password.cred"), b"sealed")
    record = {"last": {"ok": True, "snapshot": "12345678"}, "last_success": 1}
    files.write_json(root.state("backup.json"), record)
    files.write(root.state("lock"), b"")
    held = described(root).keys()
    with pytest.raises(uninstall.UnreadableBackups, match="kai backup key export"):
        uninstall.uninstall(root, purge=True)
    assert described(root).keys() == held
    files.write_json(root.state("backup-key.json"), 1)
    assert uninstall.uninstall(root, purge=True)["left"] == []
    assert described(root) == before


@needs_root
def test_stamps_of_timers_go_with_them(root, tmp_path):
    before = described(root)
    deploy(root, generation(tmp_path))
    os.makedirs(root.join("/var/lib/systemd/timers"))
    for name in ("stamp-kos-old.timer", "stamp-logrotate.timer"):
        files.write(root.join(f"/var/lib/systemd/timers/{name}"), b"")
    uninstall.uninstall(root)
    assert os.listdir(root.join("/var/lib/systemd/timers")) == ["stamp-logrotate.timer"]
    assert set(before) <= set(described(root))


@needs_root
def test_what_a_purge_deletes_beyond_its_own_comes_back(root, monkeypatch):
    """The package `locales` takes /etc/default/locale along, whoever wrote it."""
    theirs, script_made = "/etc/default/locale", "/etc/rc2.d/S01db"
    for path in (theirs, script_made):
        files.write(root.join(path), b"LANG=C\n", 0o640, 12, 34)
    before = described(root)[root.join(theirs)]

    def remove(root, names, configured):
        for path in (theirs, script_made):
            files.remove(root.join(path))

    monkeypatch.setattr(system, "remove_packages", remove)
    os.makedirs(root.state())
    packages.purge(root, ["locales"], [], [script_made])
    now = described(root)
    assert now[root.join(theirs)][:3] == before[:3] and now[root.join(theirs)][4] == before[4]
    assert root.join(script_made) not in now
    assert os.listdir(root.state()) == []


@needs_root
def test_what_an_installation_script_put_into_its_packages_own_folder_goes_with_it(root, monkeypatch):
    """Of USBGuard a file of access rights would stay; of folders that others have too nothing is touched."""
    lists = {
        "usbguard:amd64": "/etc\n/etc/usb\n/etc/usb/main.conf\n",
        "base": "/etc\n/etc/shared\n",
        "kept": "/etc/kept\n",
    }
    lists["usbguard:amd64"] += "/etc/shared\n"
    for name, text in lists.items():
        files.write(root.join(f"/var/lib/dpkg/info/{name}.list"), text.encode())
    made = ["/etc/usb/main.conf", "/etc/usb/:group", "/etc/shared/x", "/etc/kept/x"]
    for path in [*made, "/etc/usb/operators.own"]:
        files.write(root.join(path), b"x")
    os.makedirs(root.state())
    seen = []
    monkeypatch.setattr(system, "remove_packages", lambda root, *_: seen.extend(packages.paths_in_etc(root)))
    packages.purge(root, ["usbguard", "kept"], ["kept"], made)
    assert "/etc/usb/:group" not in seen
    assert {"/etc/usb/main.conf", "/etc/usb/operators.own", "/etc/shared/x", "/etc/kept/x"} <= {*seen}


@needs_root
def test_a_crash_between_purge_and_putting_back_loses_nothing(root, monkeypatch):
    files.write(root.join("/etc/default/locale"), b"LANG=C\n")

    def remove(root, names, configured):
        files.remove(root.join("/etc/default/locale"))
        raise Killed

    monkeypatch.setattr(system, "remove_packages", remove)
    os.makedirs(root.state())
    with pytest.raises(Killed):
        packages.purge(root, ["locales"], [], [])
    packages.purge(root, [], [], [])
    assert files.read(root.join("/etc/default/locale")) == b"LANG=C\n"


class Declaring:
    """A generation with one declaration of users."""

    manifest = {"files": [{"path": accounts.DECLARATION, "source": "x"}]}

    @staticmethod
    def content(_source):
        return b'u kos-db - "kOS db" /var/lib/kos-db /usr/sbin/nologin\nm kos-db ssl-cert\n'


@pytest.mark.parametrize(
    ("row", "members", "shadow", "expected"),
    [
        ("/var/lib/kos-db:/usr/sbin/nologin", "ssl-cert:x:5:kos-db", "!*", []),
        ("/var/lib/kos-db:/bin/bash", "ssl-cert:x:5:kos-db", "!*", ["shell is /bin/bash, not /usr/sbin/nologin"]),
        ("/root:/usr/sbin/nologin", "ssl-cert:x:5:kos-db", "!*", ["home is /root, not /var/lib/kos-db"]),
        ("/var/lib/kos-db:/usr/sbin/nologin", "sudo:x:27:kos-db", "!*", ["is in sudo, is not in ssl-cert"]),
        ("/var/lib/kos-db:/usr/sbin/nologin", "ssl-cert:x:5:kos-db", "$y$j9T$x", ["has a password"]),
    ],
)
def test_an_altered_user_is_drift(root, row, members, shadow, expected):
    files.write(root.join("/etc/passwd"), f"kos-db:x:990:990:kOS db:{row}\n".encode())
    files.write(root.join("/etc/group"), f"kos-db:x:990:\n{members}\n".encode())
    files.write(root.join("/etc/shadow"), f"kos-db:{shadow}:1::::::\n".encode())
    assert [why for _name, _action, why in accounts.drift(root, Declaring)] == expected


def test_a_missing_user_is_drift(root):
    assert accounts.drift(root, Declaring) == [("kos-db", "create", "missing")]


def test_an_account_that_an_installed_package_names_is_not_ours_to_delete(root):
    info = root.join("/var/lib/dpkg/info")
    os.makedirs(info)
    for name, text in (("nats.postinst", "adduser nats"), ("web:amd64.postinst", "adduser www-nats\nchown web: /x")):
        files.write(f"{info}/{name}", text.encode())
    assert accounts.named_elsewhere(root, ["nats", "web"], ["nats"]) == {"web"}
    assert accounts.named_elsewhere(root, ["nats", "web"], []) == {"nats", "web"}


def test_the_page_lists_every_trace_that_the_test_allows():
    page = (ROOT / "docs/uninstall.md").read_text()
    for row in yaml.safe_load((ROOT / "docs/traces.yaml").read_text()):
        assert f"| `{row['path']}` | {row['kept_by']} | {row['what']} |" in page


def test_packages_that_nobody_can_deliver_are_refused_in_one_sentence(root, monkeypatch):
    """As when a rollback to a larger generation finds no network and an empty cache."""
    failed = SimpleNamespace(returncode=100, stdout=b"", stderr=b"E: Failed to fetch")
    monkeypatch.setattr(system, "run", lambda *arguments, **options: failed)
    with pytest.raises(system.CommandFailed, match=r"needs nats-server, .* connect it .*nothing was changed"):
        system.download_packages(root, ["nats-server"])


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_volume_that_is_a_link_is_left_to_its_owner(tmp_path, kind):
    elsewhere, volume = tmp_path / "elsewhere", tmp_path / "volume"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("data")
    if kind == "link":
        volume.symlink_to(elsewhere)
    else:
        volume.mkdir()
    said = cleanup._drop_volume(str(volume))
    assert (elsewhere / "precious").read_text() == "data"
    assert (said is not None and str(elsewhere) in said) if kind == "link" else (said is None and not volume.exists())
