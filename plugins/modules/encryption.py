#!/usr/bin/python
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: encryption
short_description: Encrypt the data of a kOS node that already runs, unlock it, and look after its keys
version_added: "0.3.0"
description:
  - Moves the data directories of a node into a LUKS2 volume on a spare disk, a partition or a file, while its services
    run but for the last incremental copy. Whatever stops it, the next run goes on from there.
  - With C(ansible_pipelining=true) no passphrase is written to a disk of the node; the playbook sets it.
author:
  - The kOS authors (@kind-os)
attributes:
  action:
    description: Its outcome is written to the events of the run.
    support: full
  check_mode:
    description: Can run in check mode.
    details:
      - Nothing but O(query=status) does anything in check mode.
    support: partial
  diff_mode:
    description: Has no diff.
    support: none
options:
  query:
    description:
      - V(status) tells how the volume is; V(header) gives a copy of its header, in base64, to be kept elsewhere.
      - V(apply) encrypts what is in clear; V(undo) takes the data back; V(discard) removes the plain copies.
      - V(unlock) opens it and starts what waited for it; V(lock) stops that and closes it.
      - V(add_key), V(remove_key) and V(rotate) change what opens it.
    type: str
    required: true
    choices: [status, apply, undo, discard, unlock, lock, add_key, remove_key, rotate, header]
  passphrase:
    description: The passphrase; for O(query=unlock) also a recovery key or the PIN of the TPM.
    type: str
    default: ''
  new_passphrase:
    description: The one that takes its place, for O(query=rotate).
    type: str
    default: ''
  target:
    description: A disk or partition, best by C(/dev/disk/by-id); with O(file) a path where nothing is.
    type: str
    default: ''
  wipe:
    description: The same path again, where what it holds may be lost.
    type: str
    default: ''
  file:
    description: Make a file at O(target) and encrypt in it.
    type: bool
    default: false
  size_mb:
    description: Of that file, in MB; V(0) is twice what the data need.
    type: int
    default: 0
  skip:
    description: Data directories that stay in clear.
    type: list
    elements: str
    default: []
  kind:
    description: Which kind of key is added or removed.
    type: str
    choices: [tpm2, fido2, tang, recovery]
  pin:
    description: What the TPM asks for beside its measurements.
    type: str
    default: ''
  url:
    description: Of the Tang server.
    type: str
    default: ''
  thumbprint:
    description: Of the Tang server's key.
    type: str
    default: ''
  unproven:
    description: Remove the plain copies though the volume was never opened after a restart.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Encrypt the data of this node
  kind.kos.encryption:
    query: apply
    target: /dev/disk/by-id/virtio-spare
    passphrase: "{{ encryption_passphrase }}"
  no_log: true

- name: Open them after a restart
  kind.kos.encryption:
    query: unlock
    passphrase: "{{ encryption_passphrase }}"
  no_log: true
"""

RETURN = r"""
answer:
  description: What was done, or how it is.
  returned: success
  type: raw
"""

import base64
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kind.kos.plugins.module_utils.node.encryption import keys, opening, verbs
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.outcome import told


def _status(root: Root, _options: dict[str, Any]) -> Any:
    return verbs.listing(root)


def _move(root: Root, options: dict[str, Any]) -> Any:
    wish = {key: options[key] for key in ("target", "wipe", "file", "size_mb", "skip")}
    asked = {"verb": options["query"], "wish": wish, "unproven": options["unproven"]}
    return verbs.detached(root, {**asked, "passphrase": options["passphrase"]})


def _unlock(root: Root, options: dict[str, Any]) -> Any:
    return opening.unlock(root, options["passphrase"])


def _lock(root: Root, _options: dict[str, Any]) -> Any:
    return opening.lock(root)


def _add_key(root: Root, options: dict[str, Any]) -> Any:
    more = {key: options[key] for key in ("pin", "url", "thumbprint")}
    return {"kind": options["kind"], "recovery_key": keys.add(root, options["kind"], options["passphrase"], **more)}


def _remove_key(root: Root, options: dict[str, Any]) -> Any:
    keys.remove(root, options["kind"])
    return {"kind": options["kind"]}


def _rotate(root: Root, options: dict[str, Any]) -> Any:
    return {"changed": keys.rotate(root, options["passphrase"], options["new_passphrase"])}


def _header(root: Root, _options: dict[str, Any]) -> Any:
    return base64.b64encode(keys.header(root)).decode()


QUERIES = {
    "status": _status,
    "apply": _move,
    "undo": _move,
    "discard": _move,
    "unlock": _unlock,
    "lock": _lock,
    "add_key": _add_key,
    "remove_key": _remove_key,
    "rotate": _rotate,
    "header": _header,
}
_READS = ("status", "header")


def main() -> None:
    """Entry point of the module."""
    secret = {"type": "str", "default": "", "no_log": True}
    text = {"type": "str", "default": ""}
    module = AnsibleModule(
        argument_spec={
            "query": {"type": "str", "required": True, "choices": list(QUERIES)},
            "passphrase": secret,
            "new_passphrase": secret,
            "pin": secret,
            "target": text,
            "wipe": text,
            "url": text,
            "thumbprint": text,
            "file": {"type": "bool", "default": False},
            "size_mb": {"type": "int", "default": 0},
            "skip": {"type": "list", "elements": "str", "default": []},
            "kind": {"type": "str", "choices": list(keys.KINDS)},
            "unproven": {"type": "bool", "default": False},
        },
        required_if=[("query", "add_key", ["kind"]), ("query", "remove_key", ["kind"])],
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="disks and keys are root's: connect as root or set ansible_become")
    query = module.params["query"]
    if module.check_mode and query not in _READS:
        module.exit_json(changed=True, answer={})
    with told(module):
        answer = QUERIES[query](Root(), module.params)
        done = answer.get("changed", answer.get("opened", True)) if isinstance(answer, dict) else True
        module.exit_json(changed=query not in _READS and done, answer=answer)


if __name__ == "__main__":
    main()
