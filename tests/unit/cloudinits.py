# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents of each shape as text that a person reviews: `make golden` writes them again."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.kind.kos.plugins.plugin_utils import cloud_init
from ansible_collections.kind.kos.plugins.plugin_utils.cloud_init import Collection, Layer, Machine, Network, Node

FOLDER = Path(__file__).resolve().parent / "golden_cloud_init"
KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP nobody\'s "{{ key }}"'
SIGNER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP controller"
MACHINE = Machine((KEY,), "attic")
NODE = Node("personal_node", "production", accepted=("cpu", "memory"))
COLLECTION = Collection("https://kos.example/kind-kos-0.1.0.tar.gz", SIGNER, 64 * "a")


def documents() -> dict[str, dict[str, str]]:
    """Of every shape, by its name."""
    layer = Layer("logging:\n  level: info\n", ".yaml")
    fixed = Network("enp1s0", "192.0.2.7/24", "192.0.2.1", ("192.0.2.53",))
    mirrors = ("https://mirror.example/debian", "https://mirror.example/security")
    return {
        "pull": cloud_init.pull(MACHINE, Node(NODE.profile, NODE.environment, layer, None), COLLECTION),
        "push": cloud_init.push(Machine((KEY,), "attic", "anna", *mirrors, fixed), SIGNER),
        "seeded": cloud_init.seeded(MACHINE, NODE),
    }


def golden(shape: str) -> str:
    """All documents of one shape, one after the other."""
    parts = [f"=== {name}\n{text}" for name, text in documents()[shape].items()]
    return "\n".join(parts)


def main() -> None:
    """Write every file, and drop those of shapes that are gone."""
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.txt"):
        path.unlink()
    for shape in documents():
        (FOLDER / f"{shape}.txt").write_text(golden(shape))


if __name__ == "__main__":
    main()
