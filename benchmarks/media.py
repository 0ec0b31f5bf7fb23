# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stick by `kos-image`, against mkosi and against what its steps cost at least; packages have been fetched before.

mkosi installs the same packages, is given what else is on our medium as files, compresses with the same program at the
same level and proves its root by dm-verity too. Both keep their work on the same disk. Each tool runs in a tree of
Debian 13's programs that was made before.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measure import BIN, ROOT, Result, Run

from ansible_collections.kind.kos.lab import cache, identity
from ansible_collections.kind.kos.lab.cache import Recipe, Workshop
from ansible_collections.kind.kos.plugins.plugin_utils import apt
from kos_image.definition import define

PROFILE, OUTPUT, ARCHITECTURE = "development", "usb", "amd64"
LEVEL = 3  # of zstd, on both sides
_TREE = Recipe(
    "mkosi", 1, "apt",
    (
        "apt-utils", "cpio", "cryptsetup-bin", "debian-archive-keyring", "dosfstools", "grub-common", "grub-pc-bin",
        "mkosi", "mmdebstrap", "mtools", "python3-pefile", "squashfs-tools", "systemd-boot-efi", "systemd-repart",
        "systemd-ukify", "uidmap", "zstd",
    ),
)  # fmt: skip
_HERE = Path(__file__).parent
_EPOCH = "1750000000"
_PARTITIONS = {
    "00-esp": "Type=esp\nFormat=vfat\nCopyFiles=/boot:/\nCopyFiles=/efi:/\nSizeMinBytes=300M\nSizeMaxBytes=300M",
    "05-bios": "Type=21686148-6449-6e6f-744e-656564454649\nSizeMinBytes=1M\nSizeMaxBytes=1M",
    "10-root": f"Type=root\nFormat=squashfs\nCompression=zstd\nCompressionLevel={LEVEL}\nCopyFiles=/\nVerity=data\n"
    "VerityMatchKey=root\nMinimize=best",
    "20-verity": "Type=root-verity\nVerity=hash\nVerityMatchKey=root\nMinimize=best",
}


@dataclass
class Spent(Run):
    """One finished command; `peak` is the memory of its largest process, in MB."""

    peak: int = 0


def spend(argv: Sequence[str | Path], environ: dict[str, str] | None = None) -> Spent:
    """Run a command and count what it and all its descendants cost. Ends the program where it fails."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [str(word) for word in argv], cwd=ROOT, env={**os.environ, **(environ or {})}, stdin=subprocess.DEVNULL,
            stdout=said, stderr=said,
        )  # fmt: skip
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(map(str, argv))} failed:\n{said.read()[-3000:]}")
    return Spent(time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss >> 10)


@dataclass(frozen=True)
class Ours:
    """A build by `kos-image`, with a cache and a copy of the builder's own files, one of which may change."""

    folder: Path

    @property
    def image(self) -> Path:
        """What comes out."""
        return self.folder / "ours.raw"

    def prepare(self) -> None:
        """Fetch the packages, and make once what every build on a machine stands on."""
        shutil.copytree(ROOT / "image-builder", self.folder / "image-builder")
        self.build()

    def forget(self) -> None:
        """Throw away all but what was fetched, and the toolbox."""
        for entry in (self.folder / "cache" / "stages").iterdir():
            if not entry.name.startswith(("toolbox-", "wheels-")):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self.image.unlink(missing_ok=True)

    def change(self) -> None:
        """Change one file that is on the medium."""
        hello = self.folder / "image-builder/kos_image/trees/common/etc/kos-benchmark"
        hello.parent.mkdir(parents=True, exist_ok=True)
        hello.write_text(f"{time.monotonic_ns()}\n")

    @property
    def payload(self) -> Path:
        """What is on the medium beside its root."""
        return next((self.folder / "cache" / "stages").glob("data-*"))

    def build(self) -> Spent:
        """One build, or what is missing of it."""
        own = {
            "KOS_MEDIA_CACHE": self.folder / "cache", "KOS_MEDIA_LOCK": self.folder / "locks",
            "PYTHONPATH": f"{self.folder / 'image-builder'}:{ROOT / 'collections'}",
            "XDG_CONFIG_HOME": self.folder / "config",
        }  # fmt: skip
        environ = {name: str(path) for name, path in own.items()}
        argv = [BIN / "kos-image", "build", "--profile", PROFILE, "--output", OUTPUT, "--arch", ARCHITECTURE]
        return spend([*argv, "--to", self.image], environ)


@dataclass(frozen=True)
class Mkosi:
    """The same as a project of mkosi's; `payload` is a folder that ours carries beside its root."""

    folder: Path
    tree: Path

    @property
    def image(self) -> Path:
        """What comes out."""
        return self.folder / "mkosi.output" / "image.raw"

    def prepare(self, packages: Sequence[str], arguments: Sequence[str], payload: Path) -> None:
        """Write the project, and have the packages fetched."""
        for name in ("mkosi.cache", "mkosi.extra/usr/share/kos", "mkosi.output", "mkosi.pkgcache", "mkosi.repart"):
            (self.folder / name).mkdir(parents=True)
        # It installs GRUB for a BIOS from the image, where ours comes from the toolbox.
        wanted = ",".join([*packages, "grub-pc-bin", "systemd-boot"])
        (self.folder / "mkosi.conf").write_text(
            "[Distribution]\nDistribution=debian\nRelease=trixie\nArchitecture=x86-64\n"
            f"Mirror={apt.inherit().mirror}\n[Output]\nFormat=disk\nSeed=5eed5eed-0000-4000-8000-000000000001\n"
            "[Content]\nBootable=yes\nBootloader=systemd-boot\nBiosBootloader=grub\nWithDocs=no\n"
            f"SourceDateEpoch={_EPOCH}\nPackages={wanted}\nKernelCommandLine={' '.join(arguments)}\n"
            "[Build]\nToolsTree=\n"
        )
        for name, text in _PARTITIONS.items():
            (self.folder / f"mkosi.repart/{name}.conf").write_text(f"[Partition]\n{text}\n")
        _write_apt(self.folder / "mkosi.sandbox/etc/apt")
        shutil.copytree(payload, self.folder / "mkosi.extra/usr/share/kos/payload")
        self.build("--cache-only=never")

    def forget(self) -> None:
        """Throw away all but the packages."""
        for name in ("mkosi.cache", "mkosi.output"):
            shutil.rmtree(self.folder / name)
            (self.folder / name).mkdir()

    def change(self) -> None:
        """Change one file that is on the medium."""
        (self.folder / "mkosi.extra/usr/share/kos/benchmark").write_text(f"{time.monotonic_ns()}\n")

    def build(self, *options: str) -> Spent:
        """One build, or what is missing of it."""
        private = ["unshare", "--mount", "--propagation", "private", "sh", _HERE / "mkosi.sh"]
        return spend([*private, self.tree, self.folder, "--force", *options, "build"])


def _write_apt(folder: Path) -> None:
    """This machine's way to packages: mkosi's own names a mirror."""
    way = apt.inherit()
    for name in ("apt.conf.d", "sources.list.d"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list.d/mkosi.sources").write_text(way.sources("trixie"))
    (folder / "apt.conf.d/80inherited").write_text("".join(f"{line}\n" for line in way.options))


def floor(folder: Path, tree: Path, packages: Sequence[str], debs: Path) -> Spent:
    """What nobody can spare: unpack and configure the packages, and compress the result."""
    work = folder / "floor"
    _write_apt(work)
    here = 'mkdir -p "$1/var/cache/apt/archives" && cp --reflink=auto ' + f'{debs}/*.deb "$1/var/cache/apt/archives/"'
    install = spend(
        [
            *("mmdebstrap", "--mode=root", "--variant=apt", f"--include={','.join(packages)}", "--skip=download/empty"),
            *(f"--setup-hook={here}", "--dpkgopt=force-unsafe-io", f"--aptopt={work}/apt.conf.d/80inherited"),
            *("trixie", work / "root", work / "sources.list.d/mkosi.sources"),
        ],
        {"INITRD": "No", "SOURCE_DATE_EPOCH": _EPOCH},
    )
    pack = (
        "mount --bind {0} {1}/mnt && chroot {1} mksquashfs /mnt/root /mnt/out -comp zstd -Xcompression-level {2} -quiet"
    )
    line = pack.format(work, tree, LEVEL)
    packed = spend(["unshare", "--mount", "--propagation", "private", "sh", "-c", line])
    shutil.rmtree(work)
    return Spent(install.wall + packed.wall, install.cpu + packed.cpu, max(install.peak, packed.peak))


def _tree() -> Path:
    def make(workshop: Workshop) -> None:
        workshop.debootstrap(_TREE.variant, _TREE.packages, workshop.folder / "tools")

    lab = identity.Lab("bench", ROOT)
    return cache.ensure(lab, _TREE, apt.inherit(), make, "making mkosi's tree, once", print) / "tools"


def _ratio(name: str, goal: str, ours: Spent, theirs: Spent) -> Result:
    note = f"{ours.cpu:.1f} / {theirs.cpu:.1f} CPU s; peak {ours.peak} / {theirs.peak} MB"
    return Result(name, goal, [ours.wall / theirs.wall], [ours.cpu / theirs.cpu], note)


def sticks() -> tuple[list[Result], list[str]]:
    """One run of each, in turn; what the table shows, and the lines below it."""
    definition = define(OUTPUT, ARCHITECTURE)
    tree = _tree()
    with tempfile.TemporaryDirectory(prefix="kos-bench-", dir="/var/tmp") as name:
        ours, mkosi = Ours(Path(name) / "ours"), Mkosi(Path(name) / "mkosi", tree)
        ours.folder.mkdir()
        ours.prepare()
        mkosi.prepare(definition.packages, definition.kernel_arguments, ours.payload)
        ours.forget()
        mkosi.forget()
        cold = ours.build(), mkosi.build("--incremental", "--cache-only=always")
        least = floor(Path(name), tree, definition.packages, ours.folder / "cache" / "debs")
        unchanged = ours.build(), mkosi.build("--incremental", "--cache-only=always")
        ours.change()
        mkosi.change()
        changed = ours.build(), mkosi.build("--incremental", "--cache-only=always")
        sizes = [path.stat().st_blocks * 512 for path in (ours.image, mkosi.image)]
        whole = [path.stat().st_size for path in (ours.image, mkosi.image)]
    results = [
        _ratio("stick, cold: kos-image / mkosi", "≤ 0.7 cpu", *cold),
        _ratio("... nothing changed", "≤ 0.02 cpu", *unchanged),
        _ratio("... one file changed", "≤ 0.25 cpu", *changed),
        _ratio("stick, cold: kos-image / floor", "none set", cold[0], least),
        _ratio("mkosi / floor", "none set", cold[1], least),
    ]
    size = (
        f"size of the stick: {whole[0] >> 20} / {whole[1] >> 20} MiB, {whole[0] / whole[1]:.2f}× (goal ≤ 0.65); "
        f"without zeros {sizes[0] >> 20} / {sizes[1] >> 20} MiB"
    )
    return results, [size]
