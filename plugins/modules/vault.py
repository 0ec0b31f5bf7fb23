#!/usr/bin/python
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: vault
short_description: Read the operator's secrets of an environment
version_added: "0.2.0"
description:
  - Decrypts C(configs/secrets/<environment>.vault) on the controller, with the passwords that Ansible was given
    (C(--vault-password-file), C(ANSIBLE_VAULT_PASSWORD_FILE), C(--ask-vault-pass)). The environment C(local) also
    reads C(development.vault).
  - Returns nothing where the environment has no such file. Refuses a file that is not encrypted, and names that no
    service knows.
  - The task must say C(no_log=true).
author:
  - The kOS authors (@kind-os)
attributes:
  action:
    description: Runs on the controller only.
    support: full
  check_mode:
    description: Can run in check mode.
    support: full
  diff_mode:
    description: Has no diff.
    support: none
options:
  environment:
    description: The environment, by name.
    type: str
    required: true
  configs:
    description: The tree of profiles, modes, layers and secrets; default is the collection's own.
    type: path
"""

EXAMPLES = r"""
- name: Read the operator's secrets
  kind.kos.vault:
    environment: production
  register: vault
  no_log: true
"""

RETURN = r"""
secrets:
  description: The secrets by C(service.name).
  returned: success
  type: dict
"""
