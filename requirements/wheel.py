# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For the build of the wheel: the files of the root that belong to the collection.

hatchling moves folders alone; an empty source, which would move everything, comes before all others and takes along
the packages that lie beside the collection.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILES = ("LICENSE", "README.md", "galaxy.yml", "site.yml")


class Files(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the files to a wheel; an editable one is the checkout itself (dev-mode-dirs)."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects files."""
        if version != "editable":
            build_data["force_include"].update({name: f"ansible_collections/kind/kos/{name}" for name in FILES})
