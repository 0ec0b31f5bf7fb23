# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai wheels`: bring the wheels of services from PyPI into the unit store, each proved by the hash it is locked by."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..plugins.plugin_utils import oci, unit_store, venvs
from ..plugins.plugin_utils.assemble import COLLECTION
from ..plugins.plugin_utils.faults import ConfigurationError, Fault, nearest
from ..plugins.plugin_utils.images import Architecture, Image
from . import options
from .exits import Exit
from .units import commands, site_lock, tools
from .view import console, errors, size

app = typer.Typer(help="Fetch the wheels that services from PyPI are installed from.", no_args_is_help=True)

_SERVICES = COLLECTION / "services"


@dataclass(frozen=True)
class Fetched:
    """The wheels of one service in the unit store."""

    service: str
    reference: str
    architecture: Architecture
    wheels: int
    size: int


@app.command()
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Services with a requirements.lock; none: list them.")
    ] = None,
    arch: commands.Arch = None,
    store: commands.Store = None,
    lock: commands.Lock = None,
    as_json: options.AsJson = False,
) -> None:
    """Fetch locked wheels with pip, from the index that it is set up for, and enter them into the site's lock.

    A wheel whose hash is not in the lock is refused. From then on a plan may choose the service, and a deploy sends
    its nodes what they lack: no node asks an index.

    Examples:

      kai wheels fetch chroma

      kai wheels fetch chroma --arch arm64
    """
    if not names:
        for name in locked_services(_SERVICES):
            print(name)
        return
    architecture, kept = commands.architecture_of(arch), store or unit_store.store_path()
    entered = lock or commands.lock_path()
    fetched = [_fetch(name, architecture, kept, entered) for name in names]
    if as_json:
        print(json.dumps([vars(one) for one in fetched], indent=1))
        return
    for one in fetched:
        console.print(f"[bold]{one.service}[/] {one.wheels} wheels, {one.architecture}, {size(one.size)}")
        print(f"  {one.reference}")
    errors.print(f"kept in {kept}; entered into {entered}", style="dim", markup=False)


def locked_services(services: Path) -> list[str]:
    """The services whose wheels are locked."""
    return sorted(path.parent.name for path in services.glob(f"*/{venvs.LOCK}"))


def _fetch(name: str, architecture: Architecture, store: Path, lock: Path) -> Fetched:
    known = locked_services(_SERVICES)
    if name not in known:
        fix = nearest(name, known)
        raise ConfigurationError([Fault(f"kOS has no locked wheels for '{name}'", key="kai wheels fetch", fix=fix)])
    try:
        with tempfile.TemporaryDirectory(prefix="kos-wheels-") as folder:
            with errors.status(f"fetching the wheels of {name} for {architecture}"):
                tools.run(download(_SERVICES / name / venvs.LOCK, architecture, Path(folder)))
            found = [_kept(path, store) for path in sorted(Path(folder).glob("*.whl"))]
        manifest, config = venvs.artifact(name, found)
        unit_store.put_blob(store, config)
        stored = unit_store.add_image(store, venvs.repository(name), manifest, architecture)
        row = Image(
            repository=stored.repository,
            digests={architecture: stored.digest},
            licence="NOASSERTION",
            source=f"wheels of services/{name}/{venvs.LOCK}, by kai wheels fetch",
        )
        site_lock.enter(lock, venvs.image_name(name), row)
    except (tools.ToolFailed, unit_store.StoreBroken, OSError, ValueError) as error:
        errors.print(str(error), style="red", markup=False)
        raise typer.Exit(Exit.UNEXPECTED) from error
    total = sum(wheel.size for wheel in found)
    return Fetched(name, f"{stored.repository}@{stored.digest}", architecture, len(found), total)


def download(lock: Path, architecture: Architecture, folder: Path) -> list[str]:
    """The call of pip that fetches what `lock` names, for the nodes' Python and not the controller's."""
    argv = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps"]
    argv += ["--require-hashes", "--only-binary=:all:", f"--dest={folder}", f"--requirement={lock}"]
    argv += [f"--python-version={venvs.PYTHON}", "--implementation=cp"]
    argv += [f"--abi={abi}" for abi in (f"cp{venvs.PYTHON.replace('.', '')}", "abi3", "none")]
    return argv + [f"--platform={tag}" for tag in venvs.platforms(architecture)]


def _kept(path: Path, store: Path) -> venvs.Wheel:
    with unit_store.new_blob(store) as stream:
        content = path.read_bytes()
        stream.write(content)
    return venvs.Wheel(path.name, oci.digest(content), len(content))
