# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the disk of an installed node is laid out: what the installer makes, and what updates of the system rely on."""

from __future__ import annotations

# Labels of GPT; the second disk of a mirror has them with SECOND at the end.
PREFIX = "kos-"
BIOS, ESP, JOURNAL, ROOT, DATA, SECOND = "kos-bios", "kos-esp", "kos-journal", "kos-root", "kos-data", "-2"
# The opened LUKS devices are called as their partitions are: /dev/mapper/kos-root.
MAPPER = "/dev/mapper"

# Types of GPT: UEFI Specification, Discoverable Partitions Specification, GNU GRUB; the journal's is our own.
TYPES = {
    "bios": "21686148-6449-6e6f-744e-656564454649",
    "esp": "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
    "root-amd64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    "root-arm64": "b921b045-1df0-41c3-af44-4c6f280d3fae",
    "data": "0fc63daf-8483-4772-8e79-3d69d8477de4",
    "journal": "6b6f732d-6a6f-4572-8e61-6c2d76657231",
}

# Subvolumes. The root of the system is one that is numbered: an update makes the next one of it.
ROOT_SLOT = "@root.{number}"
PERSISTENT = {"@var": "/var", "@log": "/var/log", "@home": "/home"}

# What belongs to a root though programs look for it below /var: it lies in SYSIMAGE of that root, bound to its place.
SYSIMAGE = "/usr/lib/sysimage"
BOUND = {"dpkg": "/var/lib/dpkg", "apt": "/var/lib/apt", "kos": "/var/lib/kos"}

ESP_AT = "/efi"
# Where the installed system image keeps what its first boot entry is made of.
INSTALLED = "/usr/lib/kos/installed"
