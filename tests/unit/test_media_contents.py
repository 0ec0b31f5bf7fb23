# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on every medium beside its packages: kai, the list of what all is made of, seeds and base images."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path
from uuid import UUID

import pytest
import yaml

from ansible_collections.kind.kos.plugins.plugin_utils import cloud_scripts, oci, own_node
from kos_image import contents, nocloud, oci_base, python_site, sbom, toolbox
from kos_image.asked import Asked
from kos_image.definition import define
from kos_image.errors import UsageError
from kos_image.kit import Kit
from kos_image.packages import Lock, Package

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP me"
DEB = Package("nats", "2.10-1", "amd64", "pool/n/nats_2.10-1_amd64.deb", 10, 20, "ab" * 32, ("usb",))


class Host:
    """A toolbox that is this machine: its programs see the folders by links."""

    epoch = 1750000000

    def __init__(self, tmp_path):
        self.base = tmp_path / "box"

    def run(self, argv, folders, environ=None):
        self.base.mkdir(exist_ok=True)
        places = {f"/build/{name}": str(folder) for name, folder in folders.items()}
        told = []
        for word in argv:
            for seen, there in places.items():
                word = word.replace(seen, there)
            told.append(word)
        return subprocess.run(told, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as it lies on a medium; of the wheels only what names commands, and nothing compiled."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "wheels" / python_site.TREE / python_site.PACKAGES / "ansible_core-2.19.dist-info"
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text("[console_scripts]\nansible-playbook = ansible.cli.playbook:main\n")
    (folder / "site").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(python_site, "_compile", lambda *_: None)
        python_site.site(None, folder / "wheels", 1750000000, folder / "site")
    return folder / "site" / python_site.TREE


def test_both_rooms_and_the_collection_are_in_the_site(site):
    packages = site / python_site.PACKAGES
    for path in (
        "kos_image/dracut/90kos-live/kos-root.sh",
        "kos_image/trees/live/usr/lib/systemd/system/kos-verify.service",
        "kos_image/trees/live/usr/lib/systemd/system/kos-install-engine.service",
        "kos_install/main.py",
        "kos_install/locale/de.po",
        "kos_install/screens/look.tcss",
        "ansible_collections/kind/kos/galaxy.yml",
        "ansible_collections/kind/kos/cli/main.py",
        "ansible_collections/kind/kos/services/valkey/service.yaml",
    ):
        assert (packages / path).is_file(), path
    assert not (packages / "LICENSE").exists() and not list(packages.glob("*.dist-info/RECORD"))


def test_commands_run_the_mediums_own_python(site):
    assert {path.name for path in (site / "usr/bin").iterdir()} >= {
        "kai",
        "kos-install",
        "kos-image",
        "ansible-playbook",
    }
    kai = (site / "usr/lib/kos/bin/kai").read_text()
    assert kai.startswith("#!/usr/lib/kos/bin/python3 -I\n")
    assert "from ansible_collections.kind.kos.cli.main import main" in kai
    assert (site / "usr/bin/kai").readlink() == Path("/usr/lib/kos/bin/kai")
    assert (site / "usr/lib/kos/bin/python3").readlink() == Path("/usr/bin/python3")


def test_nothing_names_this_machine(site):
    here = str(Path(__file__).resolve().parents[2]).encode()
    found = [path for path in site.rglob("*") if path.is_file() and here in path.read_bytes()]
    assert found == []


def test_the_source_decides_over_the_site():
    assert python_site.source_digest() == python_site.source_digest()


def test_the_lock_holds_what_kai_needs_and_hashes_alone():
    text = python_site.LOCK.read_text()
    named = {line.partition("==")[0] for line in text.splitlines() if "==" in line}
    assert {"ansible-core", "rich", "pydantic", "typer", "cyclonedx-python-lib"} <= named
    assert not named & {"pytest", "molecule", "ruff"} and "--index-url" not in text
    assert text.count("--hash=sha256:") > len(named)


def listed(**more):
    manifest = {
        "architecture": "amd64",
        "content": [
            {"path": "apt/pool/main/n/nats/nats_2.10-1_amd64.deb", "sha256": "ab" * 32},
            {"path": "apt/pool/main/l/lib/lib_2_all.deb", "sha256": "56" * 32},
            {"path": "models/small.gguf", "sha256": "cd" * 32},
            {"path": "apt/InRelease", "sha256": "ef" * 32},
        ],
        "images": [{"repository": "example.org/team/valkey", "digest": "sha256:" + "12" * 32}],
    }
    # The root and the bundle have the first one both; the second has an epoch, and is for every architecture.
    debs = [DEB, DEB, Package("lib", "1:2", "all", "pool/l/lib_2_all.deb", 10, 20, "56" * 32, ("personal_node 1",))]
    parts = [*sbom.packages(debs), *sbom.wheels({"pkg:pypi/rich@15.0.0": "34" * 32}), *sbom.bundled(manifest)]
    parts.append(sbom.kos("0.1.0", "78" * 32))
    return sbom.document("kos-usb", "0.1.0", 1750000000, UUID(int=7), parts)


def test_the_list_names_everything_once_and_with_its_digest():
    data = json.loads(listed())
    assert (data["bomFormat"], data["specVersion"]) == ("CycloneDX", "1.6")
    assert data["metadata"]["timestamp"].startswith("2025-06-15T15:06:40")
    found = {one.get("purl", one["bom-ref"]): one["hashes"][0]["content"] for one in data["components"]}
    assert found == {
        "pkg:deb/debian/nats@2.10-1?arch=amd64&distro=debian-13": "ab" * 32,
        "pkg:deb/debian/lib@1:2?arch=all&distro=debian-13": "56" * 32,
        "pkg:generic/kos@0.1.0": "78" * 32,
        "pkg:pypi/rich@15.0.0": "34" * 32,
        "model:small.gguf": "cd" * 32,
        f"pkg:oci/valkey@sha256:{'12' * 32}?repository_url=example.org/team/valkey": "12" * 32,
    }
    assert len(data["components"]) == 6


@pytest.mark.parametrize(
    ("output", "architecture", "expected"),
    [("usb", "amd64", ["dracut-core", "grub-pc-bin"]), ("usb", "arm64", ["dracut-core"])],
)
def test_what_a_medium_has_of_the_toolbox_is_listed(output, architecture, expected):
    names = ("dracut-core", "grub-pc-bin", "mtools")
    rows = tuple(Package(name, "1", "amd64", f"{name}.deb", 1, 1, "ab" * 32, (toolbox.SET,)) for name in names)
    lock = Lock("amd64", 1, rows)
    kit = Kit(None, lock, lock, "amd64", Path("/none"), define(output, architecture))
    assert [one.name for one in contents._of_toolbox(kit)] == expected


def test_the_same_contents_give_the_same_list():
    assert listed() == listed()


def asked(tmp_path, **more):
    key = tmp_path / "me.pub"
    key.write_text(f"{KEY}\n")
    return Asked("personal_node", "nocloud", "amd64", **{"hostname": "attic", "ssh_keys": (key,), **more})


def test_a_seed_lets_in_who_holds_the_key_and_deploys(tmp_path):
    files = nocloud.files(asked(tmp_path, layers={"env": "local"}))
    data = yaml.safe_load(files["user-data"])
    (user,) = data["users"]
    assert files["user-data"].startswith("#cloud-config\n") and data["hostname"] == "attic"
    assert user["ssh_authorized_keys"] == [KEY] and user["lock_passwd"] and not data["ssh_pwauth"]
    given = {row["path"]: row["content"] for row in data["write_files"]}
    assert given[cloud_scripts.PATH] == cloud_scripts.SEEDED
    host = yaml.safe_load(given[own_node.INVENTORY])["kos"]["hosts"]["attic"]
    assert (host["kos_profile"], host["kos_environment"]) == ("personal_node", "local")


def test_a_seed_does_not_deploy_layers_that_are_not_on_the_image(tmp_path):
    assert "write_files" not in nocloud.files(asked(tmp_path, layers={"site": "home"}))["user-data"]


def test_another_seed_is_another_instance(tmp_path):
    one, two = (nocloud.files(asked(tmp_path, hostname=name))["meta-data"] for name in ("attic", "cellar"))
    assert yaml.safe_load(one)["instance-id"] != yaml.safe_load(two)["instance-id"]
    assert nocloud.files(asked(tmp_path))["meta-data"] == one


def test_a_seed_wants_a_public_key(tmp_path):
    with pytest.raises(UsageError, match="--ssh-key"):
        nocloud.files(asked(tmp_path, ssh_keys=()))
    private = tmp_path / "id"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    with pytest.raises(UsageError, match="not the public key"):
        nocloud.files(asked(tmp_path, ssh_keys=(private,)))


def deb(folder, name, files):
    tree = folder / name
    for path, content in {"DEBIAN/control": CONTROL.format(name=name), **files}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
    target = folder / "debs" / f"{name}_1_amd64.deb"
    target.parent.mkdir(exist_ok=True)
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, target], check=True, capture_output=True)
    return Package(name, "1", "amd64", f"pool/{name}_1_amd64.deb", 1, 1, "ab" * 32, ("oci",))


CONTROL = "Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: nobody\nDescription: x\n"


def test_a_base_image_is_the_same_wherever_it_is_made(tmp_path):
    authorities = {f"usr/share/ca-certificates/mozilla/{name}.crt": f"{name}\n" for name in "ba"}
    packages = [
        deb(tmp_path, "ca-certificates", {**authorities, "usr/share/man/man8/x": "left out"}),
        deb(tmp_path, "debconf", {"usr/share/debconf": "not in an image"}),
    ]
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        target = tmp_path / name / "base.tar"
        digest = oci_base.write(Host(tmp_path), packages, "amd64", tmp_path / "debs", target)
        made.append((digest, target.read_bytes()))
    assert made[0] == made[1]
    with tarfile.open(tmp_path / "one/base.tar") as archive:
        index = json.load(archive.extractfile("index.json"))
        assert [row["digest"] for row in index["manifests"]] == [made[0][0]]
        manifest = archive.extractfile(f"blobs/sha256/{made[0][0][7:]}").read()
        layer = json.loads(manifest)["layers"][0]["digest"][7:]
        with tarfile.open(fileobj=archive.extractfile(f"blobs/sha256/{layer}")) as tree:
            assert tree.extractfile("etc/ssl/certs/ca-certificates.crt").read() == b"a\nb\n"
            names = tree.getnames()
    assert "etc/passwd" in names and not [name for name in names if "man8" in name or "debconf" in name]
    assert list(oci.materials(manifest)) == ["pkg:deb/debian/ca-certificates@1?arch=amd64"]


def test_only_an_image_asks_for_the_packages_of_one():
    assert oci_base.sets("usb") == {} and "base-files" in oci_base.sets("oci")["oci"]


@pytest.mark.parametrize("test", [False, True])
def test_only_a_medium_for_tests_says_that_it_is_one(test):
    asked = Asked("development", "usb", "amd64", test=test)
    lock = Lock("amd64", 1, ())
    record = contents._record(Kit(asked, lock, lock, "amd64", Path("/none"), define("usb", "amd64")))
    assert record.get("test", False) is test
