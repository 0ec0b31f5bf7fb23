# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a medium's root holds for the disk of a machine: its own initrd, files to lay over it, what to leave out."""

from __future__ import annotations

import os
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.plugins.module_utils.node.machine.system_layout import INSTALLED
from ansible_collections.kind.kos.plugins.plugin_utils.assemble import node_code

from . import initrd, kit
from .definition import Definition

TREE, LIVE_ONLY, DRACUT = "tree", "live-only", "etc/dracut.conf.d/50-kos.conf"
# The node's own code as the system has it from the start: updates and the way back need no generation.
NODE = "usr/lib/kos/node"
# Of our modules for dracut, those that the node's own dracut needs too.
_SHARED_MODULES, _DRACUT_MODULES = ("90kos-keymap", "90kos-mirror"), "usr/lib/dracut/modules.d"
# The folder of files that make a root a live one, and the links that `definitions/_live.yaml` has for them.
_LIVE = "live"
# dracut on the node, with each kernel that apt brings: for any machine, as the disk may move to another.
_DRACUT = """\
hostonly="no"
add_dracutmodules+=" {add} "
omit_dracutmodules+=" {omit} "
add_drivers+=" {drivers} "
install_optional_items+=" {install} "
compress="zstd"
"""


def lay(definition: Definition, made: Path, trees: Path, folder: Path) -> None:
    """Write INSTALLED into the empty `folder`; `made` has the node's initrd. Raises OSError, ValueError."""
    wanted = definition.installed
    if wanted is None:
        raise ValueError(f"{definition.output} installs nothing")
    own = folder / INSTALLED.lstrip("/")
    (own / TREE).mkdir(parents=True)
    shutil.copyfile(made / initrd.INITRD, own / initrd.INITRD)
    for name in wanted.trees:
        shutil.copytree(trees / name, own / TREE, symlinks=True, dirs_exist_ok=True)
    for name in _SHARED_MODULES:
        shutil.copytree(initrd.MODULES / name, own / TREE / _DRACUT_MODULES / name)
    for link, target in wanted.links.items():
        (own / TREE / link).parent.mkdir(parents=True, exist_ok=True)
        (own / TREE / link).symlink_to(target)
    for name, content in node_code().items():
        (own / TREE / NODE / name).parent.mkdir(parents=True, exist_ok=True)
        (own / TREE / NODE / name).write_bytes(content)
    words = {key: " ".join(value) for key, value in wanted.initrd.model_dump().items()}
    (own / TREE / DRACUT).parent.mkdir(parents=True, exist_ok=True)
    (own / TREE / DRACUT).write_text(_DRACUT.format_map(words))
    (own / LIVE_ONLY).write_text("".join(f"{path}\n" for path in live_only(definition, trees)))


def inputs(definition: Definition, trees: Path) -> dict[str, Any]:
    """What `lay` writes, but for the initrd; empty where nothing is installed."""
    wanted = definition.installed
    if wanted is None:
        return {}
    code = {name: sha256(content).hexdigest() for name, content in node_code().items()}
    modules = [kit.files(initrd.MODULES / name) for name in _SHARED_MODULES]
    return {
        "trees": [kit.files(trees / name) for name in wanted.trees],
        "modules": modules,
        "links": wanted.links,
        "code": code,
    }


def live_only(definition: Definition, trees: Path) -> list[str]:
    """What belongs to the stick alone: its files, links to its systemd units, and what is installed from."""
    files = [path.relative_to(trees / _LIVE).as_posix() for path in (trees / _LIVE).rglob("*") if not path.is_dir()]
    names = {os.path.basename(path) for path in files}
    links = [link for link, target in definition.links.items() if os.path.basename(target) in names]
    return sorted([*files, *links, INSTALLED.lstrip("/")])
