# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images for the tests: built as a user builds them, into a store and a lock of the tests' own."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from ansible_collections.kind.kos.plugins.plugin_utils import oci, unit_store


class Images:
    """A unit store and a site lock, and `lab` told to use them."""

    def __init__(self, lab, folder: Path):
        self._lab = lab
        self.store, self.lock = folder / "units", folder / "images.lock"
        self.environment = {"KOS_UNIT_STORE": str(self.store), "KOS_SITE_LOCK": str(self.lock)}
        lab.environment |= self.environment

    def build(self, *names):
        """Build those that are not built yet."""
        missing = [name for name in names if not self.lock.exists() or name not in self._rows()]
        if missing:
            self._lab.kai("unit", "build", *missing)

    def digest(self, name):
        """The digest that the lock has for `name`."""
        return self._rows()[name]["digests"]["amd64"]

    def use(self, name, digest):
        """Have the lock name another image."""
        data = yaml.safe_load(self.lock.read_text())
        data["images"][name]["digests"]["amd64"] = digest
        self.lock.write_text(yaml.safe_dump(data))

    def variant(self, name, **config):
        """An image that differs from the one of the lock in its configuration; returns its digest."""
        manifest = json.loads(unit_store.read_blob(self.store, self.digest(name)))
        document = json.loads(unit_store.read_blob(self.store, manifest["config"]["digest"]))
        document["config"] = {**document.get("config", {}), **config}
        content = oci.canonical(document)
        manifest["config"] |= {"digest": unit_store.put_blob(self.store, content), "size": len(content)}
        added = unit_store.add_image(self.store, self._rows()[name]["repository"], oci.canonical(manifest), "amd64")
        return added.digest

    def configuration(self, digest):
        """The file of the store with an image's configuration."""
        manifest = json.loads(unit_store.read_blob(self.store, digest))
        return unit_store.blob_path(self.store, manifest["config"]["digest"])

    def _rows(self):
        return yaml.safe_load(self.lock.read_text())["images"]
