# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services from PyPI: when a plan chooses wheels, what the node makes of them, and what it refuses."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from catalogues import ROOT, catalogue, configs, machine, manifest
from typer.testing import CliRunner

from ansible_collections.kind.kos.cli import wheels as command
from ansible_collections.kind.kos.cli.main import app
from ansible_collections.kind.kos.plugins.module_utils.node import images, space, system
from ansible_collections.kind.kos.plugins.module_utils.node import venvs as on_node
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.plugin_utils import assemble, unit_store, venvs
from ansible_collections.kind.kos.plugins.plugin_utils.catalogue import load_catalogue
from ansible_collections.kind.kos.plugins.plugin_utils.venvs import Wheel

DIGEST = "sha256:" + 64 * "b"
FOLDER = "/var/lib/kos-venvs/store/" + 16 * "b"
UNIT = {"name": "kos-store.service", "exec": "@venv@/bin/store", "environment": {"WHERE": "@venv@/share"}}


def planned(folder, digest=DIGEST, **changes):
    """The plan of a profile that asks for `store` from PyPI; `digest` is what the site has of its wheels."""
    rows = {"store_wheels": {"repository": "localhost/kos/store-wheels", "digests": {"amd64": digest}, "licence": "MIT",
                             "source": "x"}}  # fmt: skip
    (folder / "services").mkdir(exist_ok=True)
    lock = folder / "services" / "images.lock"
    lock.write_text(yaml.safe_dump({"version": 1, "images": rows if digest else {}}))
    told = {"substrates": {"venv": {"packages": ["store==1"]}}, "user": "kos-store", "units": [UNIT], **changes}
    services = catalogue(folder, manifest("store", **told))
    request = assemble.Request("test", configs=configs(folder, {"services": {"vector_db": "store"}}), services=services)
    return assemble.plan(request, machine(gpus=[]))


def test_wheels_that_the_site_has_are_chosen_and_pinned(tmp_path):
    found = planned(tmp_path)
    row = next(row for row in found.plan.services if row.name == "store")
    assert row.substrate == "venv"
    assert "python3-venv" in found.plan.packages
    made = assemble.generation(found)
    assert made.manifest["images"] == [
        {"service": "store", "repository": "localhost/kos/store-wheels", "digest": DIGEST, "venv": FOLDER}
    ]
    text = made.files["tree/etc/systemd/system/kos-store.service"].decode().splitlines()
    assert f"ExecStart={FOLDER}/bin/store" in text
    assert f'Environment="WHERE={FOLDER}/share"' in text


def test_only_its_own_wheels_can_be_executed_and_the_rest_of_the_sandbox_stays(tmp_path):
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "sandbox.yaml").write_text("{NoExecPaths: /, ExecPaths: /usr, UMask: '0077'}\n")
    text = assemble.generation(planned(tmp_path)).files["tree/etc/systemd/system/kos-store.service"].decode()
    assert [line for line in text.splitlines() if line.startswith("ExecPaths=")] == [f"ExecPaths=/usr {FOLDER}"]
    assert {"NoExecPaths=/", "UMask=0077"} <= set(text.splitlines())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"digest": None}, "its wheels are not fetched: kai wheels fetch store"),
        ({"digest": "unresolved"}, "its wheels are not fetched: kai wheels fetch store"),
        ({"units": []}, "its manifest does not say how it is started"),
    ],
)
def test_what_cannot_be_installed_says_why(tmp_path, changes, why):
    found = planned(tmp_path, **changes)
    assert why in next(row.why for row in found.plan.unavailable if row.requested == "store")


def test_the_same_wheels_give_the_same_artifact_whatever_their_order():
    two = [Wheel("b-1-py3-none-any.whl", DIGEST, 5), Wheel("a_x-2.0+cpu-cp313-cp313-linux_x86_64.whl", DIGEST, 7)]
    first, config = venvs.artifact("store", two)
    assert venvs.artifact("store", reversed(two)) == (first, config)
    assert {wheel.name for wheel in venvs.wheels_of(first)} == {wheel.name for wheel in two}


@pytest.mark.parametrize("name", ["../a-1-py3-none-any.whl", "a.tar.gz", "a-1.whl", ""])
def test_what_is_no_wheel_is_refused_on_both_sides(tmp_path, name):
    with pytest.raises(ValueError, match="no name of a wheel"):
        venvs.artifact("store", [Wheel(name, DIGEST, 1)])
    layer = {"digest": DIGEST, "annotations": {venvs.TITLE: name}}
    row = {"service": "store", "venv": "/venvs/store/1", "digest": DIGEST}
    with pytest.raises(on_node.NoVenv, match="no name of a wheel"):
        on_node.install(Root(str(tmp_path)), row, {"layers": [layer]}, str(tmp_path))


def test_wheels_are_for_the_python_of_the_node_and_by_hash_only(tmp_path):
    argv = command.download(tmp_path / "requirements.lock", "arm64", tmp_path)
    assert {"--require-hashes", "--only-binary=:all:", "--no-deps", "--python-version=3.13", "--abi=cp313"} <= set(argv)
    tags = [word for word in argv if word.startswith("--platform=")]
    assert "--platform=manylinux_2_41_aarch64" in tags
    assert not [tag for tag in tags if "x86_64" in tag or "2_42" in tag]


def test_what_is_locked_is_what_the_manifest_asks_for():
    shipped = load_catalogue(ROOT / "services")
    locked = command.locked_services(ROOT / "services")
    assert "chroma" in locked
    for name in locked:
        asked = shipped.services[name].substrates.venv.packages
        lines = (ROOT / "services" / name / venvs.LOCK).read_text().splitlines()
        assert {f"{wanted} \\" for wanted in asked} <= set(lines), "run make lock-wheels"
        assert not [line for line in lines if "://" in line]
        assert len([line for line in lines if "--hash=sha256:" in line]) >= len(
            [line for line in lines if "==" in line]
        )


def a_wheel(folder, name="thing", version="1.0", more=None):
    """A real wheel that pip accepts, of one module and of `more` files (path: text)."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "ANSWER = 42\n",
        **(more or {}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
    return path


def fetched(folder, monkeypatch, more=None):
    """A unit store with the wheels of `store`, as `kai wheels fetch` leaves it; pip asks a folder, not an index."""
    wheel = a_wheel(folder, more=more)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    services = folder / "services"
    (services / "store").mkdir(parents=True)
    (services / "store" / venvs.LOCK).write_text(f"thing==1.0 --hash=sha256:{digest}\n")
    monkeypatch.setattr(command, "_SERVICES", services)
    for key, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(key, value)
    store, lock = folder / "units", folder / "site.lock"
    argv = ["wheels", "fetch", "store", "--arch", "amd64", "--store", str(store), "--lock", str(lock)]
    return SimpleNamespace(store=store, lock=lock, wheel=wheel, done=CliRunner().invoke(app, argv), argv=argv)


def test_fetched_wheels_are_in_the_store_and_in_the_lock(tmp_path, monkeypatch):
    got = fetched(tmp_path, monkeypatch)
    assert got.done.exit_code == 0, got.done.output
    row = yaml.safe_load(got.lock.read_text())["images"]["store_wheels"]
    assert row["repository"] == "localhost/kos/store-wheels"
    unit_store.verify_image(got.store, row["digests"]["amd64"])
    again = yaml.safe_load(got.lock.read_text())
    CliRunner().invoke(app, got.argv)
    assert yaml.safe_load(got.lock.read_text()) == again


def test_a_wheel_that_was_altered_on_the_index_is_refused(tmp_path, monkeypatch):
    a_wheel(tmp_path)
    got = fetched(tmp_path, monkeypatch)
    with zipfile.ZipFile(got.wheel, "a") as archive:
        archive.writestr("more.py", "")
    got.lock.unlink()
    done = CliRunner().invoke(app, got.argv)
    assert done.exit_code == 1
    assert "HASH" in done.output.upper()
    assert not got.lock.exists()


def test_a_wheel_that_was_altered_in_the_store_is_refused_by_the_node(tmp_path, monkeypatch):
    got = fetched(tmp_path, monkeypatch)
    digest = yaml.safe_load(got.lock.read_text())["images"]["store_wheels"]["digests"]["amd64"]
    wheel = venvs.wheels_of(unit_store.read_blob(got.store, digest))[0]
    unit_store.blob_path(got.store, wheel.digest).write_bytes(b"altered")
    sent = io.BytesIO()
    unit_store.write_blobs(got.store, [digest], sent)
    sent.seek(0)
    with pytest.raises(images.NoImage, match=r"not the .* it claims to be"):
        images.take(Root(str(tmp_path / "node")), sent)


@pytest.fixture
def outside():
    """A folder that a user without any privileges reaches, as one reaches /var/lib on a node; pytest's are private."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        yield Path(path)


def made_on_node(got, outside, monkeypatch):
    """Install what was fetched, without a chroot; the environment's row, and the commands that were run."""
    for key in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(key)
    root = Root(str(outside / "node"))
    digest = yaml.safe_load(got.lock.read_text())["images"]["store_wheels"]["digests"]["amd64"]
    sent = io.BytesIO()
    unit_store.write_blobs(got.store, [digest], sent)
    sent.seek(0)
    with tarfile.open(fileobj=sent) as tar:
        assert len(tar.getnames()) == 3
    sent.seek(0)
    images.take(root, sent)
    row = venvs.row("store", digest)
    rows = [row]
    assert [need.path for need in images.room_for(root, rows)] == ["/var/lib/kos-venvs"]
    inside = {**row, "venv": root.join(row["venv"])}
    run, commands = system.run, []

    def spied(argv, **options):
        commands.append(argv)
        # Who has no privileges has none to give up, and cannot become another user.
        return run(argv if os.geteuid() == 0 else argv[argv.index("--") + 1 :], **options)

    if os.geteuid() != 0:
        monkeypatch.setattr(on_node, "INSTALLER", os.geteuid())
    monkeypatch.setattr(system, "run", spied)
    monkeypatch.setattr(system, "in_root", lambda _root, argv: argv)
    monkeypatch.setattr(Root, "join", lambda self, path: path if path.startswith(self.path) else self.path + path)
    monkeypatch.setattr(on_node.os.path, "relpath", lambda path, _start: path.lstrip("/"))
    stored = json.loads(unit_store.read_blob(got.store, digest))
    on_node.install(root, inside, stored, root.state("images", "blobs", "sha256"))
    assert on_node.installed(root, inside)
    monkeypatch.setattr(system, "run", run)
    return inside, commands


def test_the_node_makes_the_environment_from_what_was_sent_and_asks_nobody(tmp_path, outside, monkeypatch):
    inside, _commands = made_on_node(fetched(tmp_path, monkeypatch), outside, monkeypatch)
    done = system.run([f"{inside['venv']}/bin/python", "-I", "-c", "import thing; print(thing.ANSWER)"])
    assert done.stdout.strip() == b"42"
    assert system.run([f"{inside['venv']}/bin/python", "-I", "-m", "pip"], check=False).returncode != 0


def test_nothing_that_a_wheel_brings_runs_while_it_is_installed(tmp_path, outside, monkeypatch):
    (outside / "seen").mkdir()
    (outside / "seen").chmod(0o777)
    told = f"import os; open('{outside}/seen/' + str(os.geteuid()), 'w').close()\n"
    evil = {"evil.pth": told, "thing-1.0.data/scripts/pip": f"#!python\n{told}", "thing-1.0.data/data/kos-complete": ""}
    inside, commands = made_on_node(fetched(tmp_path, monkeypatch, evil), outside, monkeypatch)
    assert os.listdir(outside / "seen") == []
    system.run([f"{inside['venv']}/bin/python", "-I", "-c", ""])
    assert os.listdir(outside / "seen") == [str(os.geteuid())], "this test's wheel does nothing evil"
    shed = ["setpriv", f"--reuid={on_node.INSTALLER}", f"--regid={on_node.INSTALLER}", "--clear-groups"]
    assert commands and all(argv[:4] == shed for argv in commands)


def test_the_environment_belongs_to_who_made_it_and_nobody_else_writes_it(tmp_path, outside, monkeypatch):
    inside, _commands = made_on_node(fetched(tmp_path, monkeypatch), outside, monkeypatch)
    paths = [Path(inside["venv"]), *Path(inside["venv"]).rglob("*")]
    assert any(path.name == "thing.py" for path in paths)
    assert {path.lstat().st_uid for path in paths} == {os.geteuid()}
    assert not [path for path in paths if not path.is_symlink() and path.stat().st_mode & 0o7022]
    assert [path.name for path in Path(inside["venv"]).parent.iterdir()] == [Path(inside["venv"]).name]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has an identity to give up")
def test_a_mark_that_the_installer_left_is_none(tmp_path):
    row = {**venvs.row("store", DIGEST), "venv": "/env"}
    root = Root(str(tmp_path))
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "kos-complete").write_text(DIGEST)
    assert on_node.installed(root, row)
    os.chown(tmp_path / "env", on_node.INSTALLER, -1)
    assert not on_node.installed(root, row)


def test_wheels_need_room_before_anything_changes(tmp_path):
    need = on_node.room_for({"service": "store"}, {"layers": [{"size": 2**60}]})
    assert need.size > 2**60 and need.files > 0
    with pytest.raises(space.NoRoom, match="of store's wheels, unpacked"):
        space.require(Root(str(tmp_path)), [need])


def test_environments_that_nothing_names_are_found(tmp_path):
    for path in ("one/1111", "one/2222", "two/3333"):
        (tmp_path / "var/lib/kos-venvs" / path).mkdir(parents=True)
    root = Root(str(tmp_path))
    kept = [{"venv": "/var/lib/kos-venvs/one/1111"}, {"user": "kos-x"}]
    assert on_node.leftovers(root, kept) == ["/var/lib/kos-venvs/one/2222", "/var/lib/kos-venvs/two"]
    assert on_node.leftovers(root, []) == ["/var/lib/kos-venvs"]


def test_wheels_that_nobody_sent_are_refused_with_what_to_do(tmp_path):
    rows = [venvs.row("store", DIGEST)]
    root = Root(str(tmp_path))
    assert images.can_fetch(rows)
    with pytest.raises(images.NoImage, match="kai wheels fetch store"):
        images.fetch(root, SimpleNamespace(manifest={"files": []}), rows)
