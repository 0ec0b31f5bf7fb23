# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ssh command line of an inventory's hosts, for what streams rather than answers."""

from __future__ import annotations

import shlex
from typing import Any

from .ansible import LOCAL, AnsibleFailed, Target, hosts


def shell_commands(target: Target, argv: list[str]) -> dict[str, list[str]]:
    """`argv` as it is run on each host of `target`. Raises AnsibleFailed."""
    if target.local:
        return {LOCAL.rstrip(","): argv}
    found = hosts(target)
    if target.limit:
        found = {name: variables for name, variables in found.items() if name in target.limit.split(",")}
    if not found:
        raise AnsibleFailed("no such host in the inventory's group kos")
    return {name: _ssh(name, variables, argv) for name, variables in found.items()}


def _ssh(name: str, variables: dict[str, Any], argv: list[str]) -> list[str]:
    if variables.get("ansible_become"):
        argv = ["sudo", "-n", *argv]
    command = ["ssh", *shlex.split(variables.get("ansible_ssh_common_args", ""))]
    if "ansible_ssh_private_key_file" in variables:
        command += ["-i", str(variables["ansible_ssh_private_key_file"])]
    if "ansible_port" in variables:
        command += ["-p", str(variables["ansible_port"])]
    user = f"{variables['ansible_user']}@" if "ansible_user" in variables else ""
    return [*command, f"{user}{variables.get('ansible_host', name)}", "--", shlex.join(argv)]
