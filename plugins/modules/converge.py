#!/usr/bin/python
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: converge
short_description: Replace one kOS generation by another, as one transaction
version_added: "0.1.0"
description:
  - Compares a node with a generation and makes the difference real, part by part, with a health gate after each.
  - Everything is decided from observed state. When a part does not come up healthy, all of them are taken back;
    when the commit does not arrive before the deadline, the node takes them back by itself.
  - In check mode O(step=stage) returns the changes that would be made and makes none.
author:
  - The kOS authors (@kind-os)
attributes:
  action:
    description: Sends the generation's archive from the controller when the node does not have it.
    support: full
  check_mode:
    description: Can run in check mode.
    support: full
  diff_mode:
    description: Returns the text of every file that differs.
    support: full
options:
  step:
    description: What to do.
    type: str
    required: true
    choices: [stage, switch, commit, revert]
  id:
    description: The generation's id, as M(kind.kos.plan) returns it. Needed by O(step=stage).
    type: str
  archive:
    description: The generation's archive, as M(kind.kos.plan) returns it. Needed by O(step=stage).
    type: path
  signature:
    description: The generation's signature; added on the controller, where the signing key is.
    type: str
    default: ""
  signer:
    description: The public key of the signer; a node that trusts nobody yet comes to trust it.
    type: str
    default: ""
  bring:
    description: Whether the caller can bring container images that the node lacks; then they are asked for first.
    type: bool
    default: false
  images:
    description: Tar archives with the blobs of container images (C(blobs/sha256/…)), for O(step=stage).
    type: list
    elements: path
    default: []
  bundle:
    description:
      - The bundle to deploy from, on the controller (C(kai bundle build) makes one). Then nothing is fetched from
        anywhere else. The action sends only what the node lacks of it; what the module itself gets are those archives.
    type: list
    elements: path
    default: []
  token:
    description: What O(step=stage) returned. Needed by the other steps.
    type: str
  part:
    description: The part of the generation to switch. Needed by O(step=switch).
    type: str
    choices:
      - rootless_runtime
      - firewall
      - kernel_extensions
      - base_services
      - agent_modules
      - environment_adapters
      - intrusion_detection
      - hardening
  secrets:
    description: The operator's own secrets by C(service.name); those not given are made on the node.
    type: dict
    default: {}
  node:
    description: What the node must remember of itself, such as accepted shortfalls.
    type: dict
    default: {}
  purge:
    description: Whether the data volumes of services that are no longer asked for go too, after the commit.
    type: bool
    default: false
  deadline:
    description: Seconds after which a node takes back what was not committed.
    type: int
    default: 180
  root:
    description: The root to act on; one that is not booted is staged and switched, and its first boot passes the gate.
    type: path
    default: /
"""

EXAMPLES = r"""
- name: Compare the node with a generation
  kind.kos.converge:
    step: stage
    id: "{{ preflight_plan.id }}"
    archive: "{{ preflight_plan.archive }}"
  register: staged

- name: Switch one part and wait until it is healthy
  kind.kos.converge:
    step: switch
    part: base_services
    token: "{{ staged.token }}"
  when: "'base_services' in staged.parts"
"""

RETURN = r"""
changes:
  description: Every change that was found, with its part.
  returned: when step is stage
  type: list
  elements: dict
parts:
  description: The parts that have work, in order.
  returned: when step is stage
  type: list
  elements: str
token:
  description: Names the transaction; empty when nothing is to be done.
  returned: when step is stage
  type: str
download_bytes:
  description: Bytes of packages that are fetched.
  returned: when step is stage
  type: int
need_images:
  description: Digests of the container images that the caller is to bring.
  returned: when step is stage and bring is set
  type: list
  elements: str
need_parts:
  description: Files of the bundle that the caller is to bring.
  returned: when step is stage and bundle is set
  type: list
  elements: str
health:
  description: The verdict on each service of the part.
  returned: when step is switch
  type: list
  elements: dict
number:
  description: The generation's number on this node.
  returned: when step is stage or commit
  type: int
left:
  description: A sentence for everything that is no longer asked for and could not be removed.
  returned: when step is commit
  type: list
  elements: str
reverted:
  description: Whether the node is back where it was.
  returned: when a switch or the commit failed
  type: bool
no_room:
  description: The change does not fit on the node's disk. Nothing was touched.
  returned: when step is stage and it failed for that
  type: bool
"""

import os
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kind.kos.plugins.module_utils.node import images, transaction
from ansible_collections.kind.kos.plugins.module_utils.node.bundle import NeedParts
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.space import NoRoom
from ansible_collections.kind.kos.plugins.module_utils.outcome import told

ARGUMENTS = {
    "step": {"type": "str", "required": True, "choices": ["stage", "switch", "commit", "revert"]},
    "id": {"type": "str"},
    "archive": {"type": "path"},
    "signature": {"type": "str", "default": ""},
    "signer": {"type": "str", "default": ""},
    "bring": {"type": "bool", "default": False},
    "images": {"type": "list", "elements": "path", "default": []},
    "bundle": {"type": "list", "elements": "path", "default": []},
    "token": {"type": "str", "no_log": False},
    "part": {
        "type": "str",
        "choices": [
            "rootless_runtime",
            "firewall",
            "kernel_extensions",
            "base_services",
            "agent_modules",
            "environment_adapters",
            "intrusion_detection",
            "hardening",
        ],
    },
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "node": {"type": "dict", "default": {}},
    "purge": {"type": "bool", "default": False},
    "deadline": {"type": "int", "default": 180},
    "root": {"type": "path", "default": "/"},
}
REQUIRED = [
    ("step", "stage", ("id",)),
    ("step", "switch", ("token", "part")),
    ("step", "commit", ("token",)),
    ("step", "revert", ("token",)),
]


def _stage(module: AnsibleModule, root: Root) -> dict[str, Any]:
    options = module.params
    names = ("id", "secrets", "node", "signature", "signer", "purge", "bring")
    given = {name: options[name] for name in names}
    request = transaction.Request(**given, bundle=tuple(options["bundle"]))
    archive = None
    if options["archive"]:
        with open(options["archive"], "rb") as stream:
            archive = stream.read()
    if not module.check_mode:
        for path in options["images"]:
            with open(path, "rb") as stream:
                images.take(root, stream)
    try:
        if module.check_mode:
            with tempfile.TemporaryDirectory(dir=module.tmpdir) as scratch:
                staged = transaction.check(root, request, archive, scratch)
        else:
            staged = transaction.stage(root, request, archive)
    except transaction.NeedArchive:
        return {"changed": False, "need_archive": True}
    except transaction.NeedImages as needed:
        return {"changed": False, "need_archive": False, "need_images": [row["digest"] for row in needed.rows]}
    except NeedParts as needed:
        return {"changed": False, "need_archive": False, "need_parts": needed.paths}
    for name in staged.unknown_secrets:
        module.warn(f"kos_secrets names {name}, which nothing of this plan uses")
    result = {key: value for key, value in vars(staged).items() if key not in ("diffs", "unknown_secrets")}
    return {"changed": bool(staged.changes), "need_archive": False, "diff": staged.diffs, **result}


def _switch(module: AnsibleModule, root: Root) -> dict[str, Any]:
    options = module.params
    health = transaction.switch(root, options["token"], options["part"], options["secrets"], options["deadline"])
    return {"changed": True, "health": [row.as_dict() for row in health]}


def _commit(module: AnsibleModule, root: Root) -> dict[str, Any]:
    committed = transaction.commit(root, module.params["token"])
    for sentence in committed.left:
        module.warn(f"not removed: {sentence}")
    return {"changed": False, "number": committed.number, "left": committed.left}


def _revert(module: AnsibleModule, root: Root) -> dict[str, Any]:
    health = transaction.revert(root, module.params["token"])
    return {"changed": health is not None, "health": [row.as_dict() for row in health or []]}


STEPS = {"stage": _stage, "switch": _switch, "commit": _commit, "revert": _revert}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, required_if=REQUIRED, supports_check_mode=True)
    if os.geteuid() != 0:
        module.fail_json(msg="kOS changes users, packages and systemd units: connect as root or set ansible_become")
    with told(module):
        try:
            module.exit_json(**STEPS[module.params["step"]](module, Root(module.params["root"])))
        except NoRoom as error:
            module.fail_json(msg=str(error), no_room=True)


if __name__ == "__main__":
    main()
