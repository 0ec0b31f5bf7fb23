# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every layout on every machine of `machines/`, as text that a person reviews: `make golden` writes it again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kos_install.answers import Answers
from kos_install.dry_run import summary
from kos_install.errors import Unplannable
from kos_install.hardware import describe
from kos_install.hardware.model import Machine
from kos_install.storage.picture import picture
from kos_install.storage.plan import plan

HERE = Path(__file__).resolve().parent
MACHINES, FOLDER = HERE / "machines", HERE / "golden_installs"
_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP somebody@somewhere"


def names() -> list[str]:
    """Every machine that is described."""
    return sorted(path.stem for path in MACHINES.glob("*.json"))


def machine(name: str) -> Machine:
    """A machine of `machines/`."""
    return describe.load(MACHINES / f"{name}.json")


def answers(**more: Any) -> Answers:
    """Answers with what has no default."""
    return Answers.model_validate({"version": 1, "user": {"ssh_keys": [_KEY]}, **more})


def layouts(here: Machine) -> dict[str, dict[str, Any]]:
    """What is asked of a machine: each layout, on the first disks that are not its medium."""
    paths = [{"path": disk.path} for disk in here.disks if not disk.medium] or [{"path": "/dev/sda"}]
    first, second = paths[0], paths[1] if len(paths) > 1 else {"path": "/dev/another"}
    return {
        "whole disk, whichever there is": {},
        "whole disk, the first": {"disk": first},
        "free space on the first": {"layout": "free_space", "disk": first},
        "mirror of the first two": {"layout": "mirror", "disk": first, "second": second},
        "system on the first, data on the second": {"disk": first, "data": second},
    }


def golden(name: str) -> str:
    """All layouts on one machine."""
    here = machine(name)
    parts = ["\n".join([f"# {name}", "", *summary(here)])]
    seen: dict[tuple[str, ...], str] = {}
    for title, asked in layouts(here).items():
        outcome = tuple(_outcome(here, asked))
        known = seen.setdefault(outcome, title)
        parts.append("\n".join([f"## {title}", *(outcome if known == title else [f"as: {known}"])]))
    return "\n\n".join(parts) + "\n"


def _outcome(here: Machine, storage: dict[str, Any]) -> Iterator[str]:
    try:
        made = plan(answers(storage=storage), here)
    except Unplannable as error:
        yield f"REFUSED: {error}"
        return
    yield picture(here, made)
    yield "does: " + " ".join(action.id for action in made.actions)
    yield from (f"warns: {line}" for line in made.warnings)


def main() -> None:
    """Write every file, and drop those of machines that are gone."""
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.txt"):
        path.unlink()
    for name in names():
        (FOLDER / f"{name}.txt").write_text(golden(name))


if __name__ == "__main__":
    main()
