# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which stages lead to which output."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from uuid import uuid5

from ansible_collections.kind.kos.plugins.plugin_utils import signing
from ansible_collections.kind.kos.plugins.plugin_utils.media import About
from ansible_collections.kind.kos.plugins.plugin_utils.signing import Signer

from . import (
    assembly,
    bundled,
    contents,
    disk,
    filesystems,
    initrd,
    installing,
    nocloud,
    node,
    oci_base,
    root_tree,
    secureboot,
    tree,
)
from .assembly import Started
from .definition import Initrd
from .disk import Content
from .filesystems import Verity
from .kit import Kit, code, files, settings
from .secureboot import Key
from .stages import Folders, Stage

# What the last stage of every output leaves: the file that was asked for, what lies beside it under longer names, and
# what is to be said of it.
RESULT = "result"
FACTS = "facts.json"
TREES = Path(__file__).with_name("trees")
# What these stages do is spread over many modules: whoever changes one makes them again, which takes seconds.
_CODE = Path(__file__).parent
_ROOT_CODE = ("bootstrap.py", "clean-root.sh", "native.py", "root_tree.py", "toolbox.sh")
_INITRD_CODE = ("initrd.py", "make-initrd.sh", "toolbox.sh")
# The kernel is on the boot partition of a live medium, and so not in its root.
_NOT_LIVE = ("boot",)
_SQUASHFS, _VERITY, _ROOTHASH, _EXT4, _EROFS, _TAR = (
    "root.squashfs",
    "root.verity",
    "roothash",
    "root.ext4",
    "data.erofs",
    "system.tar",
)


def last(kit: Kit) -> Stage:
    """The stage whose RESULT is what was asked for; what it needs stands behind it."""
    return _LAST[kit.asked.output](kit)


def root(kit: Kit) -> Stage:
    """The packages of the medium, installed."""
    definition = kit.medium
    locked = kit.lock.of(definition.output)

    def make(folder: Path, made: Folders) -> None:
        debs = kit.debs(locked)
        root_tree.make(kit.box(made), locked, definition.packages, definition.architecture, debs, folder)

    inputs = {
        "packages": kit.lock.digest(definition.output),
        "asked for": settings(sorted(definition.packages)),
        "date": str(kit.epoch),
        "recipe": code(*_ROOT_CODE),
    }
    return Stage("root", "installing the packages", make, inputs, (kit.toolbox,))


def starter(kit: Kit, below: Stage, wanted: Initrd, name: str = "initrd") -> Stage:
    """Kernel and initrd."""

    def make(folder: Path, made: Folders) -> None:
        initrd.make(kit.box(made), wanted, made[below.name], folder)

    inputs = {
        "initrd": settings(wanted.model_dump()),
        "recipe": settings(code(*_INITRD_CODE), files(initrd.MODULES)),
    }
    return Stage(name, f"making the {name}", make, inputs, (kit.toolbox, below))


def system(kit: Kit, below: Stage, site: Stage) -> Stage:
    """The root file system: packages, the files laid over them, kai; one that is never written to proves each block.

    What it installs on a disk is in it: it is this root, with what `installed.lay` writes.
    """
    definition = kit.medium
    trees = [TREES / name for name in definition.trees]
    node = starter(kit, below, definition.installed.initrd, "node-initrd") if definition.installed else None

    def make(folder: Path, made: Folders) -> None:
        archive = folder / _TAR
        without = _NOT_LIVE if definition.root.verity and not node else ()
        with tempfile.TemporaryDirectory(dir=folder) as name:
            links, own = Path(name) / "links", Path(name) / "own"
            for made_here in (links, own):
                made_here.mkdir()
            for link, target in definition.links.items():
                (links / link).parent.mkdir(parents=True, exist_ok=True)
                (links / link).symlink_to(target)
            if node:
                installing.lay(definition, made[node.name], TREES, own)
            overlays = [*trees, links, own, made[site.name] / contents.SITE]
            tree.merge(made[below.name] / root_tree.TAR, overlays, kit.epoch, archive, without)
        if definition.root.verity:
            box = kit.box(made)
            filesystems.squashfs(box, archive, folder / _SQUASHFS, definition.root.level)
            found = filesystems.verity(box, folder / _SQUASHFS, kit.seed, folder / _VERITY)
            (folder / _ROOTHASH).write_text(found.roothash)
            archive.unlink()

    inputs = {
        "trees": settings([files(one) for one in trees]),
        "links": settings(definition.links),
        "installed": settings(installing.inputs(definition, TREES)),
        "root": settings(definition.root.model_dump()),
        "recipe": _recipe(),
    }
    after = (kit.toolbox, below, site, *((node,) if node else ()))
    return Stage("system", "packing the root file system", make, inputs, after)


def live(kit: Kit) -> Stage:
    """A live medium."""
    below = root(kit)
    started, over, data = (
        starter(kit, below, kit.medium.initrd),
        system(kit, below, contents.site(kit)),
        contents.data(kit),
    )
    signer = signing.signer()
    key = Key(*kit.asked.secure_boot) if kit.asked.secure_boot else None

    def make(folder: Path, made: Folders) -> None:
        box, packed = kit.box(made), made[over.name]
        verity = Verity((packed / _ROOTHASH).read_text())
        with tempfile.TemporaryDirectory(dir=folder) as name:
            boot, image = Path(name) / "boot", Path(name) / _EROFS
            boot.mkdir()
            starts = Started(made[started.name], f"kOS {kit.asked.profile}")
            assembly.live_boot(box, kit.medium, made[below.name] / root_tree.TAR, starts, verity, key, boot)
            filesystems.erofs(box, made[data.name] / contents.DATA, uuid5(kit.seed, "data"), image)
            parts = {
                "root": Content(packed / _SQUASHFS, verity.data_uuid),
                "verity": Content(packed / _VERITY, verity.hash_uuid),
                "data": Content(image),
            }
            assembly.write_disk(box, kit.medium, boot, parts, kit.seed, folder / RESULT)
        sealed = assembly.seal(folder / RESULT, _about(kit, verity.roothash), signer, carried=True)
        finish(folder, {"roothash": verity.roothash, "merkle_root": sealed})

    inputs = {**_inputs(kit, signer), "secure boot": _digest_of(key)}
    stages = (kit.toolbox, below, started, over, data)
    return Stage("medium", "writing the medium and its manifest", make, inputs, stages)


def installed(kit: Kit) -> Stage:
    """The disk of a node."""
    below = root(kit)
    started, over, data = (
        starter(kit, below, kit.medium.initrd),
        system(kit, below, contents.site(kit)),
        contents.data(kit),
    )
    signer = signing.signer()

    def make(folder: Path, made: Folders) -> None:
        box, definition = kit.box(made), kit.medium
        starts = Started(made[started.name], f"kOS {kit.asked.profile}")
        with tempfile.TemporaryDirectory(dir=folder) as name:
            work = Path(name)
            own, boot, archive, image = work / "own", work / "boot", work / _TAR, work / _EXT4
            own.mkdir()
            boot.mkdir()
            boots = starts.kernel(definition.kernel_arguments)
            assembly.node_files(definition, boots, kit.seed, own)
            if kit.asked.seeded:
                nocloud.lay(kit.asked, own)
            shutil.copytree(made[data.name] / contents.DATA, own / contents.ON_A_NODE, copy_function=os.link)
            tree.merge(made[over.name] / _TAR, [own], kit.epoch, archive)
            place = definition.root
            filesystems.ext4(box, archive, node.root_uuid(kit.seed), image, place.room_mb, place.header_mb)
            assembly.node_boot(definition, archive, boots, kit.seed, boot)
            raw = folder / RESULT if definition.image == "raw" else work / "disk.raw"
            lies = Content(image, node.partition_uuid(kit.seed) if definition.encrypted else None)
            assembly.write_disk(box, definition, boot, {"root": lies}, kit.seed, raw)
            if definition.image == "qcow2":
                disk.qcow2(box, raw, folder / RESULT)
        sealed = assembly.seal(folder / RESULT, _about(kit), signer, carried=False)
        finish(folder, {"merkle_root": sealed})

    inputs = {**_inputs(kit, signer), "seed": settings(nocloud.laid(kit.asked) if kit.asked.seeded else None)}
    return Stage("medium", "writing the disk and its manifest", make, inputs, (kit.toolbox, below, started, over, data))


def _inputs(kit: Kit, signer: Signer) -> dict[str, str]:
    return {
        "definition": settings(kit.medium.model_dump()),
        "about": settings(asdict(_about(kit))),
        "signer": signer.public,
        "recipe": _recipe(),
    }


def _recipe() -> str:
    return code(*sorted(path.name for path in _CODE.glob("*.py")))


def _about(kit: Kit, roothash: str = "") -> About:
    asked = kit.asked
    return About(asked.profile, asked.output, asked.architecture, kit.epoch, kit.lock.digest(asked.output), roothash)


def _digest_of(key: Key | None) -> str:
    """The certificate, and what enrols it: the key is nobody's business, and its signatures are all the same."""
    public = [key.certificate, *secureboot.enrolment(key)] if key else []
    return settings([hashlib.sha256(path.read_bytes()).hexdigest() for path in public])


def finish(folder: Path, facts: dict[str, str]) -> None:
    """Write down what the result is."""
    path = folder / RESULT
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    (folder / FACTS).write_text(json.dumps({"size": path.stat().st_size, "sha256": digest, **facts}))


def bundle(kit: Kit) -> Stage:
    """The bundle, by itself."""
    below = bundled.stage(kit)

    def make(folder: Path, made: Folders) -> None:
        os.link(made[below.name] / bundled.FILE, folder / RESULT)
        finish(folder, {})

    return Stage("result", "taking the bundle", make, after=(below,))


def seed(kit: Kit) -> Stage:
    """What cloud-init reads."""

    def make(folder: Path, made: Folders) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            nocloud.write(kit.box(made), kit.asked, kit.seed, Path(name), folder / RESULT)
        finish(folder, {})

    inputs = {"files": settings(nocloud.files(kit.asked)), "recipe": _recipe()}
    return Stage("result", "writing the seed", make, inputs, (kit.toolbox,))


def base_image(kit: Kit) -> Stage:
    """What people's own container images can start from."""
    locked = kit.lock.of(oci_base.SET)

    def make(folder: Path, made: Folders) -> None:
        digest = oci_base.write(kit.box(made), locked, kit.asked.architecture, kit.debs(locked), folder / RESULT)
        finish(folder, {"digest": digest})

    inputs = {
        "packages": kit.lock.digest(oci_base.SET),
        "base": settings(oci_base.base().model_dump(mode="json")),
        "date": str(kit.epoch),
        "recipe": _recipe(),
    }
    return Stage("result", "writing the image", make, inputs, (kit.toolbox,))


_LAST: dict[str, Callable[[Kit], Stage]] = {
    "usb": live,
    "portable": live,
    "disk": installed,
    "qcow2": installed,
    "pi": installed,
    "bundle": bundle,
    "nocloud": seed,
    "oci": base_image,
}
