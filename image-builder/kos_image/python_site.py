# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kai on a medium: a virtual environment of the target's Python, from wheels locked by their hashes and our own.

Nothing of the target is run, so every architecture is made alike.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path

from ansible_collections.kind.kos.cli.units import pypi
from ansible_collections.kind.kos.cli.units.tools import ToolFailed
from ansible_collections.kind.kos.plugins.plugin_utils.assemble import COLLECTION
from ansible_collections.kind.kos.plugins.plugin_utils.images import Architecture

from .errors import HostError, ImageError
from .stages import digest_of
from .toolbox import Toolbox

VERSION = 1  # of the recipe below: an input of the stages
LOCK = Path(__file__).with_name("requirements.lock")
SUITE = "trixie"
HOME = "usr/lib/kos"
PACKAGES = f"{HOME}/lib/python{pypi.PYTHON[SUITE]}/site-packages"
TREE, MATERIALS = "tree", "materials.json"
_OWN = "kind_kos"
# Whose commands a person calls.
_COMMANDS = (_OWN, "ansible_core")
# Of the wheels' installation, what names this machine or is of no use without pip.
_LEFT_OUT = ("bin", "*.dist-info/RECORD", "*.dist-info/direct_url.json", "*.dist-info/REQUESTED")
_LAUNCHER = """\
#!/{home}/bin/python3 -I
import sys

from {module} import {function}

sys.exit({function}())
"""


def wheels(toolbox: Toolbox, architecture: Architecture, folder: Path) -> None:
    """Fill the empty `folder` with the locked wheels' TREE, and MATERIALS: their package URLs and SHA-256.

    Raises ImageError.
    """
    target = folder / TREE / PACKAGES
    target.parent.mkdir(parents=True)
    try:
        materials = pypi.install(LOCK, SUITE, architecture, target, folder / "report.json")
    except ToolFailed as error:
        raise ImageError(f"the wheels of the medium cannot be fetched: {error}") from error
    (folder / "report.json").unlink()
    for pattern in _LEFT_OUT:
        for path in target.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    _compile(toolbox, folder / TREE, PACKAGES)
    (folder / MATERIALS).write_text(json.dumps(materials, indent=1, sort_keys=True))


def site(toolbox: Toolbox, below: Path, epoch: int, folder: Path) -> None:
    """Fill `folder` with a TREE of the wheels in `below` and our own. Raises ImageError."""
    tree = folder / TREE
    # The wheels are not written to again: one file in two stages.
    shutil.copytree(below / TREE, tree, copy_function=os.link)
    own = _unpack_own(epoch, tree / PACKAGES)
    for name in own:
        _compile(toolbox, tree, f"{PACKAGES}/{name}")
    (tree / HOME / "bin").mkdir()
    (tree / HOME / "bin/python3").symlink_to("/usr/bin/python3")
    # Ansible's modules of this very machine use python3-apt.
    (tree / HOME / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n")
    (tree / "usr/bin").mkdir()
    for name, content in _launchers(tree / PACKAGES):
        (tree / HOME / "bin" / name).write_text(content)
        (tree / HOME / "bin" / name).chmod(0o755)
        (tree / "usr/bin" / name).symlink_to(f"/{HOME}/bin/{name}")


def source_digest() -> str:
    """Of everything that our own wheel is made of. Raises HostError where this is no checkout."""
    checkout = _checkout()
    settings = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    found = (path for name in wanted for path in _files(checkout / name))
    return digest_of([*(checkout / name for name in ("pyproject.toml", "galaxy.yml", "site.yml")), *found], checkout)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (Path(folder, name) for name in names if not name.endswith(".pyc"))


def _checkout() -> Path:
    if not (COLLECTION / "pyproject.toml").is_file():
        raise HostError("media are made from a checkout of kOS, and this is an installed one: git clone it, make setup")
    return COLLECTION


def _unpack_own(epoch: int, target: Path) -> list[str]:
    """Build our own wheel and unpack it; the names of the folders it brought."""
    with tempfile.TemporaryDirectory(prefix="kos-wheel-") as name:
        argv = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", name]
        environ = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
        done = subprocess.run(argv, cwd=_checkout(), env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ImageError(f"the wheel of kOS cannot be built: {done.stderr.strip().splitlines()[-1]}; make setup?")
        (wheel,) = Path(name).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            members = [one for one in archive.infolist() if not one.filename.endswith("/RECORD")]
            for one in members:
                path = Path(archive.extract(one, target))
                runnable = one.external_attr >> 16 & stat.S_IXUSR
                path.chmod(0o755 if runnable else 0o644)
    return sorted({one.filename.partition("/")[0] for one in members if ".dist-info" not in one.filename})


def _launchers(packages: Path) -> Iterator[tuple[str, str]]:
    """Each command's name, and the program that runs it."""
    for name in _COMMANDS:
        (info,) = packages.glob(f"{name}-*.dist-info")
        for entry in Distribution.at(info).entry_points.select(group="console_scripts"):
            yield entry.name, _LAUNCHER.format(home=HOME, module=entry.module, function=entry.attr)


def _compile(toolbox: Toolbox, tree: Path, name: str) -> None:
    """Compile for the target's Python, which is the toolbox's; the result says nothing of times and places."""
    argv = ["python3", "-I", "-m", "compileall", "-q", "-f", "-j1", "--invalidation-mode=unchecked-hash"]
    argv += ["-s", "/build/tree", "-p", "/", f"/build/tree/{name}"]
    toolbox.run(argv, {"tree": tree}, {"PYTHONHASHSEED": "0"})
