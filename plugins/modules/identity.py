#!/usr/bin/python
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: identity
short_description: Give a node its own Ed25519 identity
version_added: "0.1.0"
description:
  - Makes an Ed25519 key pair on the node on first use and returns the public half. The private half never leaves.
author:
  - The kOS authors (@kind-os)
attributes:
  check_mode:
    description: Can run in check mode.
    support: full
  diff_mode:
    description: Has no diff.
    support: none
options:
  root:
    description: The root that is the node, where that is not what runs.
    type: path
    default: /
"""

EXAMPLES = r"""
- name: Make the node's identity
  kind.kos.identity:
"""

RETURN = r"""
public_key:
  description: The public key in OpenSSH form; null in check mode before there is one.
  returned: always
  type: str
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kind.kos.plugins.module_utils.node import identity
from ansible_collections.kind.kos.plugins.module_utils.node.files import NodeError, Root


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec={"root": {"type": "path", "default": "/"}}, supports_check_mode=True)
    if os.geteuid() != 0:
        module.fail_json(msg="the node's identity belongs to root: connect as root or set ansible_become")
    root = Root(module.params["root"])
    if module.check_mode:
        known = identity.public_key(root)
        module.exit_json(changed=known is None, public_key=known)
    try:
        public_key, made = identity.ensure(root)
    except NodeError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=made, public_key=public_key)


if __name__ == "__main__":
    main()
