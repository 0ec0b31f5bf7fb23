# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kos-image verify`: a medium against its manifest and the keys that count."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.plugins.module_utils.node import trust
from ansible_collections.kind.kos.plugins.module_utils.node.files import NodeError
from ansible_collections.kind.kos.plugins.plugin_utils import media_check, signing
from ansible_collections.kind.kos.plugins.plugin_utils.chunks import Progress
from ansible_collections.kind.kos.plugins.plugin_utils.documents import read_text
from ansible_collections.kind.kos.plugins.plugin_utils.media import NoManifest
from ansible_collections.kind.kos.plugins.plugin_utils.media_check import Report

from .errors import Refused, UsageError


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


def verify(medium: Path, keys: Mapping[str, str], progress: Progress | None = None) -> Report:
    """What came out of reading a medium to its end. Raises Refused for what has no manifest, OSError."""
    try:
        return media_check.verify(medium, keys, progress)
    except NoManifest as error:
        raise Refused(f"{medium} cannot be proved: {error}") from error


def described(medium: Path, report: Report) -> dict[str, Any]:
    """A report as plain data."""
    about = vars(report.sealed.manifest.about) if report.sealed else None
    faults = [{"region": one.region, "start": one.start, "size": one.size, "said": one.said} for one in report.faults]
    return {
        "medium": str(medium), "ok": report.ok, "signed_by": report.signer, "grown": report.grown,
        "merkle_root": report.sealed.identity if report.sealed else None, "about": about, "faults": faults,
    }  # fmt: skip
