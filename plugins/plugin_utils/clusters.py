# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machines are one cluster: the hosts of the inventory group that `kos_cluster` names.

The cluster's secret, of which its members make the authority they know each other by, lies beside the signing key.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import re
import secrets as randomness
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .faults import ConfigurationError, Fault, nearest

ADDRESS = "kos_address"
SECRET = "certificates.cluster"  # noqa: S105 (its name, not its value)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def membership(
    host: str, name: str, groups: Mapping[str, Sequence[str]], variables: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any] | None:
    """What `host` is told of the cluster `name`: itself and its peers; None where it is in none.

    `groups` and `variables` are the inventory's, whatever the run is limited to. Raises ConfigurationError.
    """
    if not name:
        return None
    hosts = groups.get(name)
    if hosts is None or host not in hosts:
        message = "is no group of the inventory" if hosts is None else f"is a group that {host} is not in"
        fix = nearest(name, groups) if hosts is None else f"put {host} into it, or take kos_cluster from {host}"
        raise ConfigurationError([Fault(f"the cluster '{name}' {message}", key="kos_cluster", fix=fix)])
    _check(name, hosts, variables)
    rows = [{"name": each, "address": _address(variables[each], each)} for each in sorted(hosts)]
    own = next(row for row in rows if row["name"] == host)
    return {"name": name, "own": own, "peers": [row for row in rows if row is not own]}


def shown(cluster: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a plan says of the cluster of `membership`: the same for every member."""
    if cluster is None:
        return None
    return {"name": cluster["name"], "members": sorted(row["name"] for row in (cluster["own"], *cluster["peers"]))}


def _check(name: str, hosts: Sequence[str], variables: Mapping[str, Mapping[str, Any]]) -> None:
    faults = []
    if not _NAME.fullmatch(name):
        fix = "use a-z, 0-9, - and _, 63 characters at most"
        faults.append(Fault(f"'{name}' cannot name a cluster", key="kos_cluster", fix=fix))
    taken: dict[str, str] = {}
    for each in sorted(hosts):
        address = _address(variables[each], each)
        try:
            ipaddress.ip_address(address)
        except ValueError:
            message = f"{each}: its peers need its address, and '{address}' is none"
            faults.append(Fault(message, key=ADDRESS, fix=f"set {ADDRESS} of {each} to an IPv4 or IPv6 address"))
        other = taken.setdefault(address, each)
        if other != each:
            fix = f"set {ADDRESS} of each to an address that its peers reach"
            faults.append(Fault(f"{other} and {each} have the same address, {address}", key=ADDRESS, fix=fix))
    if faults:
        raise ConfigurationError(faults)


def _address(variables: Mapping[str, Any], host: str) -> str:
    for key in (ADDRESS, "ansible_host"):
        if variables.get(key):
            return str(variables[key])
    return host


def secret(name: str) -> str:
    """The secret of the cluster `name` on this controller, made on first use; readable by its user alone."""
    path = _folder() / name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Ansible's forks come here at once, and there must be one.
    with (path.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_name(f".{name}.new")
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as stream:
                stream.write(randomness.token_urlsafe(48))
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.rename(path)
    return path.read_text(encoding="ascii").strip()


def _folder() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "kos" / "clusters"
