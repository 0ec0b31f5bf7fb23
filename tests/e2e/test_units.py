# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images and units for real: Debian's packages, a registry, cosign. No node takes part."""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from labnodes import ROOT, Lab, wait_for

from ansible_collections.kind.kos.cli.units import debian
from ansible_collections.kind.kos.plugins.plugin_utils import apt, unit_store

NAME = "valkey"
NOBODY = 65534
# Whoever runs the tests may keep the checkout where nobody else can read: that is all that is left of root's rights.
_READS = "dac_read_search"
AS_NOBODY = [
    "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", f"--bounding-set=-all,+{_READS}",
    f"--inh-caps=-all,+{_READS}", f"--ambient-caps=-all,+{_READS}", "--",
]  # fmt: skip


class Controller(Lab):
    """`kai` with a store, a lock, keys and a temporary directory of its own."""

    def __init__(self, folder, programs):
        super().__init__("units")
        self.folder = folder
        (folder / "tmp").mkdir(parents=True)
        self.environment |= {
            "KOS_UNIT_STORE": str(folder / "store"), "KOS_SITE_LOCK": str(folder / "images.lock"),
            "KOS_UNIT_TRUST": str(folder / "unit_trust.yaml"), "XDG_CONFIG_HOME": str(folder / "config"),
            "TMPDIR": str(folder / "tmp"), "PATH": f"{programs}:{os.environ['PATH']}",
        }  # fmt: skip

    @property
    def store(self):
        return self.folder / "store"

    def unit(self, *argv, check=True):
        return self.kai("unit", *map(str, argv), check=check)

    def said(self, *argv):
        """What a command that must fail says, on one line."""
        done = self.unit(*argv, check=False)
        assert done.returncode == 1, done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """Debian 13's cosign and docker-registry, unpacked: neither is installed, nothing is started behind our back."""
    folder = tmp_path_factory.mktemp("workshop")
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    found = debian.unpack("trixie", architecture, ["cosign", "docker-registry"], folder)
    programs = folder / "bin"
    programs.mkdir()
    with tarfile.open(found.tree) as tar:
        for name in ("cosign", "docker-registry"):
            (programs / name).write_bytes(tar.extractfile(f"./usr/bin/{name}").read())
            (programs / name).chmod(0o755)
    found.tree.unlink()
    return programs


@pytest.fixture(scope="module")
def registry(workshop, tmp_path_factory):
    """A registry on this machine's loopback; its host and port."""
    folder = tmp_path_factory.mktemp("registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (folder / "config.yml").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(workshop / "docker-registry"), "serve", str(folder / "config.yml")], stdout=log, stderr=log
        )
    try:
        wait_for(lambda: answers(port), 20)
        yield f"localhost:{port}"
    finally:
        process.terminate()
        process.wait(20)


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def controller(workshop, tmp_path_factory):
    """A controller that has built and signed Valkey."""
    made = Controller(tmp_path_factory.mktemp("controller") / "one", workshop)
    made.unit("build", NAME)
    made.unit("sign", NAME, "--why", "a test", "--intent", "security")
    return made


@pytest.fixture
def other(workshop, tmp_path):
    """Another controller, that has nothing."""
    return Controller(tmp_path / "other", workshop)


def image(controller):
    """The image of the controller's store, and its layer."""
    stored = unit_store.images(controller.store)[-1]
    manifest = json.loads(unit_store.read_blob(controller.store, stored.digest))
    return stored, unit_store.blob_path(controller.store, manifest["layers"][0]["digest"])


@pytest.fixture
def nobody(workshop):
    """A controller of the user nobody, where that user may go."""
    with tempfile.TemporaryDirectory(prefix="kos-e2e-") as folder:
        os.chmod(folder, 0o755)
        made = Controller(Path(folder) / "nobody", workshop)
        for path in (made.folder, made.folder / "tmp"):
            os.chown(path, NOBODY, NOBODY)
        yield made


def test_the_same_packages_give_the_same_image_without_root(controller, nobody):
    """In another directory, with another umask, by another user."""
    kai = [str(ROOT / ".venv/bin/kai"), "unit", "build", NAME]
    done = subprocess.run(
        [*AS_NOBODY, "sh", "-c", 'umask 077; exec "$0" "$@"', *kai],
        cwd=ROOT, env=nobody.environment, capture_output=True, text=True, check=False, timeout=nobody.patience,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert image(nobody)[0] == image(controller)[0]
    assert image(nobody)[1].read_bytes() == image(controller)[1].read_bytes()


def test_nothing_of_the_build_machine_is_in_an_image(controller):
    way = apt.inherit()
    hosts = {re.sub(r"^\w+://([^/:]+).*", r"\1", uri) for uri in (way.mirror, way.security_mirror) if uri}
    told = re.compile("|".join(rf"(?<![\w.-]){re.escape(text)}(?![\w-])" for text in (*hosts, str(controller.folder))))
    with tarfile.open(image(controller)[1]) as tar:
        members = tar.getmembers()
        names = {member.name for member in members}
        assert "usr/bin/valkey-server" in names
        assert not [name for name in names if name.startswith(("var/lib/dpkg/", "var/lib/apt", "etc/apt", "var/log/"))]
        assert not names & {"etc/machine-id", "etc/hostname", "etc/resolv.conf", "usr/bin/sh", "usr/bin/perl"}
        assert not [member.name for member in members if member.mode & 0o6000]
        # The documentation of a package may name any host; what runs may not.
        found = [
            member.name
            for member in members
            if member.isreg() and not member.name.startswith("usr/share/doc/")
            if told.search(tar.extractfile(member).read().decode("latin-1"))
        ]
    assert found == []


def test_an_image_for_another_architecture_is_built_without_an_emulator(other):
    foreign = "arm64" if platform.machine() == "x86_64" else "amd64"
    other.unit("build", NAME, "--arch", foreign)
    stored, layer = image(other)
    assert stored.architecture == foreign
    with tarfile.open(layer) as tar:
        machine = tar.extractfile("usr/bin/valkey-cli").read(20)[18:20]
    assert machine == {"arm64": b"\xb7\x00", "amd64": b"\x3e\x00"}[foreign]


def test_an_image_goes_through_a_registry_and_comes_back_by_digest(controller, other, registry):
    """Build, push, sign; elsewhere: resolve the tag, check the signature, pull by digest, compare every byte."""
    repository = f"{registry}/kos/{NAME}"
    reference = controller.unit("push", NAME, repository, "--http").stdout.split()[-1]
    stored, layer = image(controller)
    assert reference == f"{repository}@{stored.digest}"
    tag = f"{lock_row(controller)['tag']}-{stored.architecture}"
    key = controller.folder / "config/kos/cosign.pub"
    asked = ("lock", NAME, "--http", "--pull", "--from", repository, "--tag", tag, "--key", key)
    assert reference in other.unit(*asked).stdout
    assert lock_row(other)["digests"] == {stored.architecture: stored.digest}
    assert unit_store.verify_image(other.store, stored.digest) == unit_store.verify_image(
        controller.store, stored.digest
    )
    assert unit_store.blob_path(other.store, f"sha256:{layer.name}").read_bytes() == layer.read_bytes()
    stranger = other.folder / "stranger"
    environment = {**other.environment, "COSIGN_PASSWORD": ""}
    argv = ["cosign", "generate-key-pair", f"--output-key-prefix={stranger}"]
    subprocess.run(argv, env=environment, check=True, capture_output=True)
    assert "has no signature by the key that the lock names" in other.said(*asked[:-1], f"{stranger}.pub")
    assert lock_row(other)["key"] == lock_row(controller)["key"], "a refused row is not entered"


def lock_row(controller):
    done = subprocess.run(
        ["python3", "-c", "import sys, yaml, json; print(json.dumps(yaml.safe_load(sys.stdin)))"],
        input=(controller.folder / "images.lock").read_text(), env=controller.environment, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)["images"][NAME]


def test_what_cannot_be_resolved_says_why(other, registry):
    asked = ("lock", NAME, "--http", "--from")
    assert "its registry has no such tag" in other.said(*asked, f"{registry}/kos/nothing")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        closed = f"localhost:{nobody.getsockname()[1]}"
        assert "its registry cannot be reached from here" in other.said(*asked, f"{closed}/kos/{NAME}")
    assert not (other.folder / "images.lock").exists()


def test_a_unit_is_carried_to_a_controller_that_trusts_two(controller, other, workshop, tmp_path):
    """One signer is refused, two are enough; a flipped byte of the image is found."""
    second = Controller(tmp_path / "second", workshop)
    names = {"first": controller, "second": second}
    keys = {name: one.kai("trust", "key").stdout.strip() for name, one in names.items()}
    (other.folder / "unit_trust.yaml").write_text(json.dumps({"version": 1, "signers": keys}))
    path = tmp_path / f"{NAME}.kosunit"
    controller.unit("export", NAME, path)
    assert "needs 2 trusted signers and has 1 (first)" in other.said("import", path)
    assert not [entry for entry in other.store.rglob("*") if entry.is_file()]
    second.unit("sign", path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    altered = tmp_path / "altered.kosunit"
    altered.write_bytes(content)
    assert "was altered" in other.said("import", altered)
    assert "signed by first, second" in other.unit("import", path).stdout
    assert image(other)[0] == image(controller)[0]
    shown = json.loads(other.unit("inspect", NAME, "--json").stdout)
    assert (shown["custody"]["why"], shown["custody"]["intent"]) == ("a test", "security")
    assert any(row["uri"].startswith("pkg:deb/debian/valkey-server@") for row in shown["materials"])
