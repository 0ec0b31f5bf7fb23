# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the converge module; sign the generation, and send its archive only to a node that lacks it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from ansible.errors import AnsibleActionFail

from ..module_utils.node.bundle import BundleRefused
from ..module_utils.node.store import verified_files
from ..plugin_utils import bundles, signing, unit_store
from ..plugin_utils.bundles import Bundle
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
        """One call of the module, and more with what the node asks for: the archive, images, parts of a bundle."""
        if arguments.get("step") != "stage":
            result = super().on_node(arguments, task_vars)
            if arguments.get("part") == "hardening" and not result.get("failed"):
                self._log_in_anew()
            return result
        path = arguments.pop("bundle", None)
        if not path:
            return self._stage({**arguments, "bring": True}, task_vars)
        try:
            with bundles.opened(Path(path)) as bundle:
                return self._stage_from(bundle, arguments, task_vars)
        except BundleRefused as error:
            return {"failed": True, "msg": str(error)}

    def _log_in_anew(self) -> None:
        """Let the commit come over a new connection: a node that would not let us in again takes everything back."""
        if self._connection.transport == "ssh":
            self._connection.reset()

    def _stage(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        archive = arguments.pop("archive", None)
        result = super().on_node(arguments, task_vars)
        if result.get("need_archive") and archive:
            arguments["archive"] = self._send(archive)
            result = super().on_node(arguments, task_vars)
        if "need_images" in result:
            # What is nowhere here, the node fetches from a registry.
            try:
                sent = self._written("images.tar", lambda stream: _images(result["need_images"], stream))
            except unit_store.StoreBroken as error:
                return {"failed": True, "msg": str(error)}
            result = super().on_node({**arguments, "bring": False, "images": [sent]}, task_vars)
        return result

    def _stage_from(self, bundle: Bundle, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Stage with what the bundle holds, and nothing else."""
        why_not = _mismatch(bundle, arguments)
        if why_not:
            raise BundleRefused(why_not)
        head = self._written("bundle.tar", bundle.head)
        result = self._stage({**arguments, "bundle": [head]}, task_vars)
        if "need_parts" in result:
            parts = self._written("parts.tar", lambda stream: bundle.parts(result["need_parts"], stream))
            result = self._stage({**arguments, "bundle": [head, parts]}, task_vars)
        return result

    def _written(self, name: str, write: Callable[[IO[bytes]], None]) -> str:
        """Send what `write` writes; its name on the node. A node that deploys itself need not copy it."""
        if self._connection.transport == "local":
            path = os.path.join(self._folder(), name)
            with open(path, "wb") as stream:
                write(stream)
            return path
        with tempfile.TemporaryDirectory(prefix="kos-sent-") as folder:
            path = os.path.join(folder, name)
            with open(path, "wb") as stream:
                write(stream)
            return self._send(path)

    def _send(self, archive: str) -> str:
        folder = self._folder()
        remote: str = self._connection._shell.join_path(folder, os.path.basename(archive))
        self._transfer_file(archive, remote)
        self._fixup_perms2((folder, remote))
        return remote

    def _folder(self) -> str:
        """Of this task, on the node."""
        return str(self._connection._shell.tmpdir or self._make_tmp_path())


def _images(digests: list[str], stream: IO[bytes]) -> None:
    unit_store.write_blobs(unit_store.store_path(), digests, stream)


def _mismatch(bundle: Bundle, arguments: dict[str, Any]) -> str | None:
    """Why this generation cannot be deployed from this bundle, or None."""
    content = verified_files(Path(arguments["archive"]).read_bytes(), arguments["id"])
    return bundles.refusal(bundle, bundles.generation_row(arguments["id"], json.loads(content["manifest.json"])))


def _signed(identity: str) -> dict[str, str]:
    try:
        signer = signing.signer()
        return {"signature": signer.sign(identity), "signer": signer.public}
    except signing.SigningFailed as error:
        raise AnsibleActionFail(str(error)) from error
