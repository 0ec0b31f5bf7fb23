# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules that hold for the repository as a whole, read from its files."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = "ansible_collections.kind.kos"
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


@functools.cache
def files() -> tuple[Path, ...]:
    """What git tracks or would track, relative to the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = [Path(name) for name in listed.split("\0") if name]
    return tuple(path for path in paths if (ROOT / path).is_file())


def below(*folders: str, suffix: str = "") -> list[Path]:
    return [p for p in files() if any(p.is_relative_to(f) for f in folders) and p.name.endswith(suffix)]


def read(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def load(path: Path) -> Any:
    return yaml.safe_load(read(path)) or {}


def pyproject() -> dict[str, Any]:
    return tomllib.loads(read(Path("pyproject.toml")))


# --- roles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("part", ["README.md", "meta/argument_specs.yml", "defaults/main.yml", "tasks/main.yml"])
def test_role_is_complete(role: str, part: str):
    assert (ROOT / "roles" / role / part).is_file()


@functools.cache
def options(role: str) -> dict[str, dict[str, Any]]:
    """The options of all entry points of a role."""
    specs = load(Path("roles", role, "meta/argument_specs.yml"))["argument_specs"]
    return {name: option for entry in specs.values() for name, option in entry.get("options", {}).items()}


@pytest.mark.parametrize("role", ROLES)
def test_role_defaults_are_its_argument_specs(role: str):
    specified = {name: spec["default"] for name, spec in options(role).items() if "default" in spec}
    assert load(Path("roles", role, "defaults/main.yml")) == specified


@pytest.mark.parametrize("role", ROLES)
def test_role_option_is_required_or_has_a_default(role: str):
    wrong = [n for n, spec in options(role).items() if bool(spec.get("required")) == ("default" in spec)]
    assert not wrong


@pytest.mark.parametrize("role", ROLES)
def test_role_documents_every_option(role: str):
    readme = read(Path("roles", role, "README.md"))
    missing = [name for name, spec in options(role).items() if name not in readme or not spec.get("description")]
    assert not missing


@pytest.mark.parametrize("role", ROLES)
def test_role_option_carries_its_name(role: str):
    assert [name for name in options(role) if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_role_refers_to_no_other_role(role: str):
    others = "|".join(other for other in ROLES if other != role)
    reference = re.compile(rf"\bkind\.kos\.(?:{others})\b|(?<![\w.])_{{0,2}}(?:{others})_\w+")
    found = {
        str(path): matches
        for path in below(f"roles/{role}")
        if path.name not in {"README.md", "argument_specs.yml"} and (matches := reference.findall(read(path)))
    }
    assert not found
    assert not load(Path("roles", role, "meta/main.yml")).get("dependencies")


# --- the core --------------------------------------------------------------------------------------------------------


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join((COLLECTION, *(parts[:-1] if parts[-1] == "__init__" else parts)))


def imported(path: Path) -> Iterator[str]:
    """Absolute names of what a file imports; of `from x import y` both x and x.y, either may be the module."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(read(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            climbed = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*climbed, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_outside(path: Path, *allowed: str) -> list[str]:
    """Imports that are neither the standard library's nor below one of the allowed packages."""
    return [
        name
        for name in imported(path)
        if name.split(".")[0] not in sys.stdlib_module_names
        and not any(name == package or name.startswith(f"{package}.") for package in allowed)
    ]


CONTROLLER_CORE = below("plugins/plugin_utils", suffix=".py")
NODE_CORE = below("plugins/module_utils", suffix=".py")


@pytest.mark.parametrize("path", CONTROLLER_CORE, ids=str)
def test_controller_core_knows_no_ansible_and_no_screen(path: Path):
    allowed = [f"{COLLECTION}.plugins.plugin_utils", f"{COLLECTION}.plugins.module_utils", "jinja2", "pydantic", "yaml"]
    assert imports_outside(path, *allowed) == []


@pytest.mark.parametrize("path", NODE_CORE, ids=str)
def test_node_core_needs_only_the_standard_library(path: Path):
    assert imports_outside(path, f"{COLLECTION}.plugins.module_utils") == []


def test_what_only_the_lab_needs_stays_in_the_lab():
    marks = re.compile(r"pids_limit = 0|SYSTEMD_NSPAWN_|SYSTEMD_SECCOMP|--capability=all|/dev/net/tun")
    rooms = below("roles", "services", "plugins", "playbooks", "configs")
    assert [str(path) for path in rooms if marks.search(read(path))] == []


# --- names that must not be written down -----------------------------------------------------------------------------


def apt_urls() -> Iterator[str]:
    folder = Path("/etc/apt")
    names = ("sources.list", "sources.list.d/*.list", "sources.list.d/*.sources", "apt.conf", "apt.conf.d/*")
    for path in (path for name in names for path in folder.glob(name) if path.is_file()):
        text = re.sub(r"^\s*(#|//).*$", "", path.read_text(errors="replace"), flags=re.MULTILINE)
        yield from re.findall(r"https?://[^\s\"';\]]+", text)


def pip_urls() -> Iterator[str]:
    command = [sys.executable, "-m", "pip", "config", "list"]
    pip = subprocess.run(command, capture_output=True, text=True, check=False)
    environment = [value for name, value in os.environ.items() if re.match(r"(PIP|UV)_.*(INDEX|LINKS)", name)]
    yield from re.findall(r"https?://[^\s\"',\]]+", "\n".join([pip.stdout, *environment]))


def mirrors() -> set[str]:
    """Hosts this machine takes packages from. A name without a dot is an ordinary word: it would be found anywhere."""
    hosts = {urlsplit(url).hostname or "" for url in (*apt_urls(), *pip_urls())}
    return {host for host in hosts if "." in host and not host.startswith("127.")}


def test_no_file_names_a_package_mirror():
    names = [host.encode() for host in mirrors()]
    assert [str(path) for path in files() if any(name in (ROOT / path).read_bytes() for name in names)] == []


def test_no_file_names_this_checkout():
    here = str(ROOT).encode()
    assert [str(path) for path in files() if here in (ROOT / path).read_bytes()] == []


CODE = [path for path in files() if path.suffix in {".py", ".sh"} or path == Path(".ci/run")]


@pytest.mark.parametrize("path", [path for path in CODE if (ROOT / path).stat().st_size], ids=str)
def test_code_names_its_licence(path: Path):
    assert "SPDX-License-Identifier: GPL-3.0-or-later" in read(path)


# --- dependencies ----------------------------------------------------------------------------------------------------


def distribution(requirement: str) -> str:
    return re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0].lower()


def locked() -> dict[str, str]:
    pins = re.findall(r"^([a-z0-9._-]+)==(\S+)", read(Path("requirements/lock.txt")), flags=re.MULTILINE)
    return dict(pins)


def test_lock_pins_every_top_level_dependency():
    project = pyproject()
    wanted = {distribution(r) for r in [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]}
    assert wanted - locked().keys() == set()


@pytest.mark.parametrize("name", ["lock.txt", "lock-sanity.txt", "lock-tool.txt"])
def test_lock_has_hashes_and_no_address(name: str):
    text = read(Path("requirements", name))
    blocks = re.findall(r"^[a-z0-9._-]+==[^\n]*\n(?:    [^\n]*\n?)*", text, flags=re.MULTILINE)
    assert blocks
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert re.findall(r"\S+://\S+|--\S*index\S*|--find-links\S*", text) == []


def test_every_top_level_dependency_has_its_reason():
    text = read(Path("pyproject.toml"))
    lists = re.findall(r"^(?:dependencies|dev) = \[\n(.*?)^\]", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in lists for line in block.splitlines()]
    assert len(lists) == 2
    assert [line for line in lines if not re.fullmatch(r'\s+"[^"]+",\s+# \S.*', line)] == []


def test_execution_environment_gets_the_same_dependencies():
    lines = read(Path("requirements/execution-environment.txt")).splitlines()
    listed = {line for line in lines if line and not line.startswith("#")}
    project = {r for r in pyproject()["project"]["dependencies"] if distribution(r) != "ansible-core"}
    assert listed == project


# --- ansible-test sanity ---------------------------------------------------------------------------------------------


def ignored() -> list[str]:
    series = ".".join(locked()["ansible-core"].split(".")[:2])
    return read(Path(f"tests/sanity/ignore-{series}.txt")).splitlines()


def test_every_sanity_ignore_has_a_reason_and_a_file():
    assert [line for line in ignored() if not re.fullmatch(r"\S+ \S+ # \S.*", line)] == []
    assert [line for line in ignored() if not (ROOT / line.split()[0]).exists()] == []


# --- packages --------------------------------------------------------------------------------------------------------


def packaged() -> set[str]:
    """Files of the folders that both packages carry."""
    listed = pyproject()["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    own = {str(path) for path in below(*listed) if not path.is_relative_to("configs/secrets")}
    return {*own, "LICENSE", "README.md", "galaxy.yml", "site.yml"}


def test_wheel_carries_the_collection_and_the_two_rooms_beside_it(tmp_path: Path):
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    prefix = COLLECTION.replace(".", "/") + "/"
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.split("/")[0].endswith(".dist-info")}
    rooms = {"kos_image/": "image-builder/kos_image/", "kos_install/": "installer/kos_install/", prefix: ""}
    packed = {name.replace(start, room, 1) for name in names for start, room in rooms.items() if name.startswith(start)}
    assert packed == packaged() and len(packed) == len(names)


def test_tarball_carries_the_collection_and_only_files_that_git_knows(tmp_path: Path):
    build = [Path(sys.executable).with_name("ansible-galaxy"), "collection", "build", "--output-path", tmp_path]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tarball:
        packed = {member.name for member in tarball if not member.isdir()} - {"MANIFEST.json", "FILES.json"}
    # The content of galaxy.yml is in MANIFEST.json; the two rooms are commands for people, not a collection's.
    rooms = tuple(str(path) for path in below("image-builder/kos_image", "installer/kos_install"))
    assert packaged() - packed == {"galaxy.yml", *rooms}
    assert packed - {str(path) for path in files()} == set()
