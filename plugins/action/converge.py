# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the converge module; sign the generation, and send its archive only to a node that lacks it."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from ansible.errors import AnsibleActionFail

from ..plugin_utils import signing, unit_store
from .node import ActionModule as Watched


class ActionModule(Watched):
    """The wire: one module call a step, two where the archive has to travel."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run one step on the node."""
        super(Watched, self).run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("step") == "stage" and not arguments.get("signature"):
            arguments |= _signed(arguments["id"])
        return self.watched(arguments.get("step", ""), arguments, task_vars or {})

    def on_node(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """One call of the module, and a second with the archive when the node asks for it."""
        archive = arguments.pop("archive", None)
        if arguments.get("step") == "stage":
            arguments["bring"] = True
        result = super().on_node(arguments, task_vars)
        if result.get("need_archive") and archive:
            arguments["archive"] = self._send(archive)
            result = super().on_node(arguments, task_vars)
        if "need_images" in result:
            # What is nowhere here, the node fetches from a registry.
            arguments |= {"bring": False, "images": self._bring(result["need_images"])}
            result = super().on_node(arguments, task_vars)
        return result

    def _bring(self, digests: list[str]) -> list[str]:
        """Send those images that the unit store of this controller holds; their names on the node."""
        with tempfile.TemporaryDirectory(prefix="kos-images-") as folder:
            path = os.path.join(folder, "images.tar")
            with open(path, "wb") as stream:
                found = unit_store.write_blobs(unit_store.store_path(), digests, stream)
            return [self._send(path)] if found else []

    def _send(self, archive: str) -> str:
        shell = self._connection._shell
        folder = shell.tmpdir or self._make_tmp_path()
        remote: str = shell.join_path(folder, os.path.basename(archive))
        self._transfer_file(archive, remote)
        self._fixup_perms2((folder, remote))
        return remote


def _signed(identity: str) -> dict[str, str]:
    try:
        signer = signing.signer()
        return {"signature": signer.sign(identity), "signer": signer.public}
    except signing.SigningFailed as error:
        raise AnsibleActionFail(str(error)) from error
