# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names that no person can have on a node: useradd would refuse them, when the disk is wiped already."""

from __future__ import annotations

# Users and groups of base-passwd, of the packages of every image, and of services that come as packages.
_SYSTEM = {
    "root", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy", "www-data",
    "backup", "list", "irc", "nobody", "nogroup", "adm", "tty", "disk", "fax", "voice", "cdrom", "floppy", "tape",
    "sudo", "audio", "dip", "operator", "src", "shadow", "utmp", "video", "sasl", "plugdev", "staff", "users",
    "input", "sgx", "clock", "kvm", "render", "crontab", "netdev", "messagebus", "sshd", "polkitd", "tss",
    "dnsmasq", "dhcpcd", "uuidd", "ssl-cert", "postgres", "nats", "valkey", "redis", "prometheus", "grafana",
    "caddy", "haproxy", "etcd", "mosquitto",
}  # fmt: skip
# Of Debian's packages and of systemd; of kOS's own services.
_PREFIXES = ("_", "systemd-", "kos-")


def taken(name: str) -> bool:
    """Whether a name is, or may become, one of the system's own."""
    return name in _SYSTEM or name.startswith(_PREFIXES)
