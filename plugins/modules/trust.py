#!/usr/bin/python
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: trust
short_description: Say whose generations a kOS node accepts
version_added: "0.2.0"
description:
  - Lists, adds or removes the Ed25519 public keys whose signature a node accepts on a generation.
  - A node comes to trust the first controller that deploys to it; every further key is added here.
author:
  - The kOS authors (@kind-os)
attributes:
  action:
    description: Its outcome is written to the events of the run.
    support: full
  check_mode:
    description: Can run in check mode.
    support: full
  diff_mode:
    description: Has no diff.
    support: none
options:
  state:
    description: What to do with the key; V(listed) only reads.
    type: str
    choices: [listed, present, absent]
    default: listed
  name:
    description: What the key is called on the node.
    type: str
  key:
    description: The public key, one line in OpenSSH form. Needed by O(state=present).
    type: str
"""

EXAMPLES = r"""
- name: Accept generations of the second controller too
  kind.kos.trust:
    state: present
    name: office
    key: "{{ lookup('ansible.builtin.file', 'office.pub') }}"
"""

RETURN = r"""
answer:
  description: Every trusted key afterwards - name, fingerprint, and whether it signed the current generation.
  returned: always
  type: list
  elements: dict
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kind.kos.plugins.module_utils.node import files, status, trust
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.outcome import told

ARGUMENTS = {
    "state": {"type": "str", "default": "listed", "choices": ["listed", "present", "absent"]},
    "name": {"type": "str"},
    "key": {"type": "str", "no_log": False},
}


def _changed(root: Root, options: dict[str, Any], check: bool) -> bool:
    name, state = options["name"], options["state"]
    if state == "listed":
        return False
    if check:
        known = trust.signers(root)
        return bool((name in known) == (state == "absent"))
    with files.lock(root, wait=True):
        return trust.add(root, name, options["key"]) if state == "present" else trust.remove(root, name)


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("state", "present", ("name", "key")), ("state", "absent", ("name",))],
        supports_check_mode=True,
    )
    if module.params["state"] != "listed" and os.geteuid() != 0:
        module.fail_json(msg="whom a node trusts is root's to say: connect as root or set ansible_become")
    root = Root()
    with told(module):
        changed = _changed(root, module.params, module.check_mode)
        module.exit_json(changed=changed, answer=trust.listing(root, status.signed_by(root)))


if __name__ == "__main__":
    main()
