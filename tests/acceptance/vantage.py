# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a stranger to the node stands: the controller, or the network of the lab."""

from __future__ import annotations

import ipaddress
import shlex
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCAN = Path(__file__).with_name("scan.py")
_PATIENCE = (1, 4, 16)
_DETOURS = ("ProxyCommand", "ProxyJump", "-J ")


@dataclass(frozen=True)
class Vantage:
    """A place that looks at the node's `addresses`. `words` go before a command that is to run there."""

    words: Sequence[str]
    addresses: Sequence[str]
    ssh: int

    @classmethod
    def of(cls, words: str, variables: Mapping[str, Any], addresses: Iterable[str]) -> Vantage | None:
        """The place that was named, else the network of the lab, else this machine where nothing is between."""
        at = str(variables.get("ansible_host", variables.get("inventory_hostname", "")))
        ssh = int(variables.get("ansible_port", 22))
        if words:
            return cls(shlex.split(words), [*addresses][:1], ssh)
        if namespace := variables.get("kos_lab_network_namespace"):
            both = [at, *filter(None, [variables.get("kos_lab_address6")])]
            return cls(["nsenter", f"--net=/run/netns/{namespace}"], both, ssh)
        between = any(word in str(variables.get("ansible_ssh_common_args", "")) for word in _DETOURS)
        return None if between or not at or _is_own(at) else cls([], [at], ssh)

    def opened(self, address: str, ports: Iterable[int], sure: Collection[int]) -> set[int]:
        """Those of the ports that answer a stranger.

        Where one that is to answer does not, all are asked once more and waited for longer: a busy machine is slow.
        """
        wanted = sorted({*ports, *sure})
        for patience in _PATIENCE:
            argv = [*self.words, "python3", "-I", "-", address, str(patience), *map(str, wanted)]
            done = subprocess.run(argv, input=_SCAN.read_bytes(), capture_output=True, check=True)
            found = set(map(int, done.stdout.split()))
            if found >= set(sure):
                break
        return found


def _is_own(address: str) -> bool:
    """Whether an address is this machine's own: then the node is behind a port of it, or is it."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
