# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kos-image verify`: a medium against its manifest and the keys that count."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.plugins.module_utils.node import bundle, trust
from ansible_collections.kind.kos.plugins.module_utils.node.files import NodeError
from ansible_collections.kind.kos.plugins.plugin_utils import media, media_check, signing
from ansible_collections.kind.kos.plugins.plugin_utils.chunks import Progress
from ansible_collections.kind.kos.plugins.plugin_utils.documents import read_text
from ansible_collections.kind.kos.plugins.plugin_utils.media import NoManifest, Sealed
from ansible_collections.kind.kos.plugins.plugin_utils.media_check import Report

from .errors import HostError, Refused, UsageError

# Where a FAT file system of 16 and of 32 bits has its label; that of a seed is cloud-init's (nocloud.py).
_FAT_LABELS, _SEED = (slice(43, 54), slice(71, 82)), b"CIDATA"
_MADE = "kos-image build makes one"


def known(signer: Path | None) -> Mapping[str, str]:
    """The keys whose signature counts, by name: that of the file, or this user's own. Makes none. Raises ImageError."""
    public = read_text(signer) if signer else signing.public_key()
    if public is None:
        raise UsageError(f"you have no key of your own to verify with: name that of who made the medium, {suggested()}")
    try:
        key, comment = trust.parse_key(public)
    except NodeError as error:
        raise Refused(str(error)) from error
    return {comment or "signer": key}


def suggested() -> str:
    """The option that names who made a medium: under sudo most likely who ran sudo, whose home is not root's."""
    user = os.environ.get("SUDO_USER", "")
    return f"--signer ~{user}/.config/kos/signing_key.pub" if user not in ("", "root") else "--signer FILE.pub"


def examine(medium: Path) -> Sealed:
    """The manifest of a medium, before anything else of it is read. Raises ImageError for what is none."""
    require_readable(medium)
    try:
        return media.read(medium)
    except NoManifest as error:
        if media.beside(medium)[0].exists():
            return _beside(medium)
        if error.where:
            raise Refused(f"{medium} is broken ({error.where}: {error}): copy or build it again") from error
        raise _none(medium, str(error)) from error
    except OSError as error:
        raise _unreadable(medium, error) from error


def verify(medium: Path, keys: Mapping[str, str], progress: Progress | None = None) -> Report:
    """What came out of reading a medium to its end, even where a stranger signed it. Raises ImageError."""
    require_readable(medium)
    try:
        report = media_check.verify(medium, keys, progress)
        if not report.stranger or report.sealed is None:
            return report
        grown, altered = media_check.bytes_of(medium, report.sealed, progress)
        whole = not altered and len(report.faults) == 1
        return replace(report, faults=(*report.faults, *altered), grown=grown, whole=whole)
    except NoManifest as error:
        raise _none(medium, str(error)) from error
    except OSError as error:
        raise _unreadable(medium, error) from error


def _beside(medium: Path) -> Sealed:
    try:
        return media.read_beside(medium)
    except NoManifest as error:
        raise _none(medium, str(error)) from error


def require_readable(medium: Path) -> None:
    """Raises UsageError for what is not there or a folder, HostError for what may not be read."""
    try:
        with medium.open("rb") as stream:
            stream.read(1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"there is no {medium}: {_MADE}, and lsblk lists the sticks of this machine") from error
    except IsADirectoryError as error:
        raise UsageError(f"{medium} is a folder: name the image in it") from error
    except PermissionError as error:
        raise HostError(f"{medium} may not be read by this user: run this with sudo") from error
    except OSError as error:
        raise _unreadable(medium, error) from error


def _unreadable(medium: Path, error: OSError) -> Refused:
    said = error.strerror or str(error)
    return Refused(f"{medium} cannot be read to its end ({said}): it is broken or was pulled out; try another stick")


def _none(medium: Path, why: str) -> Refused:
    return Refused(f"{medium} is no medium of kOS: {_hint(medium) or f'{why}; {_MADE}'}")


def _hint(medium: Path) -> str:
    """What it is instead, and what to do with that, where its content says so; else nothing."""
    if medium.name.endswith((".manifest.json", ".manifest.json.sig")):
        return f"it belongs to {medium.name.partition('.manifest.json')[0]}, which lies beside it: name that"
    with medium.open("rb") as stream:
        head = stream.read(512)
    if any(head[place].rstrip() == _SEED for place in _FAT_LABELS):
        return "it is a seed, which nobody signs: attach it to a machine that boots a node's disk"
    try:
        with tarfile.open(medium, "r:") as tar:
            first = tar.next()
            if first and first.name == bundle.MANIFEST:
                return f"it is a bundle: kai bundle verify {medium}"
            container = "oci-layout" in tar.getnames()
    except (tarfile.TarError, EOFError, OSError):
        return ""
    return f"it is an image for containers: skopeo inspect oci-archive:{medium}" if container else ""


def described(medium: Path, report: Report) -> dict[str, Any]:
    """A report as plain data."""
    about = vars(report.sealed.manifest.about) if report.sealed else None
    faults = [{"region": one.region, "start": one.start, "size": one.size, "said": one.said} for one in report.faults]
    return {
        "medium": str(medium), "ok": report.ok, "signed_by": report.signer, "grown": report.grown,
        "whole": report.ok or report.whole, "stranger": report.stranger,
        "merkle_root": report.sealed.identity if report.sealed else None, "about": about, "faults": faults,
    }  # fmt: skip
