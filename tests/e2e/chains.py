# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who stops a medium that was tampered with: the table of docs/media.md. Whatever happens stands there."""

from __future__ import annotations

# Who says that a medium was tampered with, and how.
FIRMWARE, SHIM, GRUB, VERITY, CONSOLE, NOBODY, KERNEL = (
    "firmware", "shim", "GRUB", "dm-verity", "the console", "nobody", "no root is found",
)  # fmt: skip
SAYS = {
    FIRMWARE: r"Access Denied|Access denied",
    SHIM: r"Verification failed|Security Violation|Secure Boot violation",
    GRUB: r"bad shim signature|shim_lock.*prohibited|error: .*signature",
    VERITY: r"data block \d+ is corrupted",
    KERNEL: r"Timed out waiting for device|Dependency failed for .*(sysroot|initrd-root-device|Verity)",
    CONSOLE: r"BROKEN: this medium",
    NOBODY: r"Verified: all",
}
OWN_KEYS, STOCK, NO_SECURE_BOOT, BIOS = "own keys", "stock shim", "UEFI without Secure Boot", "BIOS"
# What a stranger does to the medium, in the words of tampering.Stick.
WHAT = ("kernel", "initrd", "command_line", "root_hash", "replaced", "root")
CHAINS = {
    OWN_KEYS: (FIRMWARE, FIRMWARE, FIRMWARE, FIRMWARE, FIRMWARE, VERITY),
    STOCK: (GRUB, CONSOLE, CONSOLE, KERNEL, CONSOLE, VERITY),
    NO_SECURE_BOOT: (CONSOLE, CONSOLE, CONSOLE, KERNEL, CONSOLE, VERITY),
    BIOS: (CONSOLE, CONSOLE, CONSOLE, KERNEL, CONSOLE, VERITY),
}

# The table's own words.
COLUMNS = {
    OWN_KEYS: "own keys, Secure Boot",
    STOCK: "Debian's shim, Secure Boot",
    NO_SECURE_BOOT: NO_SECURE_BOOT,
    BIOS: BIOS,
}
ROWS = (
    "the kernel",
    "the initrd",
    "the command line",
    "the root hash",
    "root and root hash together",
    "a bit of the root",
)
WORDS = {
    FIRMWARE: "the firmware refuses",
    GRUB: "GRUB refuses",
    VERITY: "dm-verity stops it",
    CONSOLE: "only the console tells",
    KERNEL: "no root is found",
}


def table():
    """The lines of the table."""
    rows = [(row, *(WORDS[CHAINS[chain][number]] for chain in COLUMNS)) for number, row in enumerate(ROWS)]
    head, *below = [f"| {' | '.join(row)} |" for row in [("tampered with", *COLUMNS.values()), *rows]]
    return [head, "|---" * (1 + len(COLUMNS)) + "|", *below]
