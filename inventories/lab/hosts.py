#!/usr/bin/env python3
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's view of the lab of this checkout: `ansible-inventory -i inventories/lab --graph`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
# In a checkout the collection resolves through its own link; installed, it lies where Python finds it.
_IMPORTS = _ROOT / "collections" if (_ROOT / "collections").is_dir() else _ROOT.parents[2]


def main(arguments: list[str]) -> int:
    """Print what Ansible asks for: `--list`, or `--host NAME`."""
    sys.path.insert(0, str(_IMPORTS))
    sys.dont_write_bytecode = True
    from ansible_collections.kind.kos.lab import inventory, state
    from ansible_collections.kind.kos.lab.identity import identify

    lab = identify()
    current = state.load(lab)
    listing = inventory.listing(lab, current)
    if current is None:
        print("No lab node is up, so this inventory is empty. `kai lab up` starts one.", file=sys.stderr)
    if arguments[:1] == ["--host"] and len(arguments) == 2:
        print(json.dumps(listing["_meta"]["hostvars"].get(arguments[1], {}), indent=1))
    else:
        print(json.dumps(listing, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
