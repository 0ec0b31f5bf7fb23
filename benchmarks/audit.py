# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What other people's scanners say of a lab node, before hardening and after: `make audit`.

lynis, ssh-audit and OpenSCAP run on the node; the same node is deployed without hardening, then with level strict.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from measure import INVENTORY, NODE, ROOT, run, ssh
from rich.console import Console
from rich.table import Table

from ansible_collections.kind.kos.plugins.plugin_utils.hardening import load_rules

_CIS = "xccdf_org.ssgproject.content_profile_cis_level1_server"
_XCCDF = "{http://checklists.nist.gov/xccdf/1.2}"
_CONTENT = "/root/ssg/usr/share/xml/scap/ssg/content/ssg-debian13-ds.xml"
_TOOLS = "apt-get -qq update && apt-get -qq -y --no-install-recommends install lynis ssh-audit openscap-scanner"
# Debian 13's own package has no rules for Debian 13: those of the next release, from the node's own mirror.
_FETCH = """
mkdir -p /root/ssg/state/lists/partial && cd /root/ssg
sed '/^Suites: .*security/,$d; s/^Suites: .*/Suites: forky/' /etc/apt/sources.list.d/debian.sources > forky.sources
apt="-o Dir::Etc::SourceList=/root/ssg/forky.sources -o Dir::Etc::SourceParts=-"
apt="$apt -o Dir::State::Lists=/root/ssg/state/lists"
apt-get -qq $apt update && apt-get -qq $apt download ssg-debian && dpkg-deb -x ssg-debian_*.deb .
"""
# devsec.hardening 10.6.0 (os and ssh) on the same kind of node, measured once.
PEER = {"lynis index": ("63", "78"), "ssh-audit fail / warn": ("6 / 13", "1 / 5")}
# A system unit of kOS beyond this exposure needs a reason in its manifest.
EXPOSED = 2.0


@dataclass(frozen=True)
class Figures:
    """What the scanners said of one state of the node, by the name of the figure."""

    rows: dict[str, str]
    notes: list[str]


def _lynis() -> tuple[dict[str, str], list[str]]:
    ssh("lynis audit system --quick --no-colors > /root/lynis.out 2>&1 || true")
    report = ssh("cat /var/log/lynis-report.dat")
    (index,) = re.findall(r"^hardening_index=(\d+)", report, re.MULTILINE)
    open_ones = re.findall(r"^(?:suggestion|warning)\[\]=([A-Z]+-\d+)", report, re.MULTILINE)
    return {"lynis index": index}, [f"lynis asks for more: {', '.join(sorted(set(open_ones)))}"]


def _ssh_audit() -> tuple[dict[str, str], list[str]]:
    found = json.loads(ssh("ssh-audit --json localhost || true"))
    levels = {"fail": 0, "warn": 0}
    for kind in ("kex", "key", "enc", "mac"):
        for row in found[kind]:
            for level in levels:
                levels[level] += bool(row.get("notes", {}).get(level))
    return {"ssh-audit fail / warn": f"{levels['fail']} / {levels['warn']}"}, []


def _units() -> tuple[dict[str, str], list[str]]:
    """The exposure of every unit of kOS: the worst, and those beyond the limit."""
    ours = "systemctl list-units --plain --no-legend 'kos-*.service' | cut -d' ' -f1"
    said = ssh(f"systemd-analyze security --no-pager $({ours})")
    found = re.findall(r"exposure level for (\S+): ([0-9.]+)", said)
    rows = {unit: float(exposure) for unit, exposure in found}
    worst = sorted(rows.items(), key=lambda row: -row[1])
    beyond = [f"{name} {value}" for name, value in worst if value > EXPOSED]
    figure = f"{worst[0][1]} ({worst[0][0]})" if worst else "none"
    return {f"worst of {len(rows)} units": figure}, [f"beyond {EXPOSED}: {', '.join(beyond) or 'none'}"]


def _openscap() -> tuple[dict[str, str], list[str]]:
    ssh(f"oscap xccdf eval --profile {_CIS} --results /root/results.xml {_CONTENT} > /root/oscap.out 2>&1 || true")
    tree = ElementTree.fromstring(ssh("cat /root/results.xml"))  # noqa: S314
    verdicts = {
        row.get("idref", "").rpartition("_rule_")[2]: row.findtext(f"{_XCCDF}result", "")
        for row in tree.iter(f"{_XCCDF}rule-result")
    }
    passed = [name for name, verdict in verdicts.items() if verdict == "pass"]
    failed = sorted(name for name, verdict in verdicts.items() if verdict == "fail")
    known = {name for row in load_rules(ROOT / "services").left_out for name in row.scanner}
    figure = f"{len(passed)} of {len(passed) + len(failed)}"
    return {"OpenSCAP CIS level 1": figure}, [
        f"fails with a reason (rules.yaml): {', '.join(name for name in failed if name in known) or 'none'}",
        f"fails: {', '.join(name for name in failed if name not in known) or 'none'}",
    ]


# ssh-audit last: sshd makes an address that behaves like it wait (PerSourcePenalties).
SCANS: dict[str, Callable[[], tuple[dict[str, str], list[str]]]] = {
    "lynis": _lynis, "openscap": _openscap, "units": _units, "ssh-audit": _ssh_audit,
}  # fmt: skip


def _measured(chosen: list[str]) -> Figures:
    rows: dict[str, str] = {}
    notes: list[str] = []
    for name in chosen:
        began = time.monotonic()
        found, said = SCANS[name]()
        rows |= found
        notes += [*said, f"{name} took {time.monotonic() - began:.0f} s"]
    return Figures(rows, notes)


def _states(profile: str) -> Iterator[tuple[str, str]]:
    """The node without hardening, then with all of it."""
    with tempfile.TemporaryDirectory() as folder:
        for level in ("none", "strict"):
            layer = Path(folder) / "site.yaml"
            layer.write_text(f"security: {{hardening: {{level: {level}}}}}\n")
            run("kai", "deploy", "-i", INVENTORY, "--limit", NODE, "--profile", profile, "--site", str(layer))
            yield level, str(layer)


def main() -> None:
    """Deploy, scan, deploy, scan; print both beside each other and beside the peer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="personal_node")
    parser.add_argument("scans", nargs="*", choices=[*SCANS, []], help="default: all")
    options = parser.parse_args()
    chosen = [name for name in SCANS if not options.scans or name in options.scans]
    figures = {}
    try:
        run("kai", "lab", "up", NODE)
        ssh(_TOOLS)
        if "openscap" in chosen:
            ssh(_FETCH)
        for level, _layer in _states(options.profile):
            figures[level] = _measured(chosen)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd[-1]} failed:\n{error.stdout}{error.stderr}")
    finally:
        run("kai", "lab", "down")
    _print(figures)


def _print(figures: dict[str, Figures]) -> None:
    console = Console()
    table = Table("figure", "kOS, level none", "level strict", "peer: before", "peer: after", box=None, pad_edge=False)
    for name, value in figures["none"].rows.items():
        table.add_row(name, value, figures["strict"].rows[name], *PEER.get(name, ("–", "–")))
    console.print(table)
    for level, found in figures.items():
        for note in found.notes:
            console.print(f"{level}: {note}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
