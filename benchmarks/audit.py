# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What other people's scanners say of a lab node, before hardening and after: `make audit`, `make audit-vm`.

lynis, ssh-audit and OpenSCAP run on two nodes of a kind, side by side: one without hardening and intrusion detection,
one with level strict and everything that detects intrusions.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import yaml
from measure import INVENTORY, ROOT, run, ssh
from rich.console import Console
from rich.table import Table

from ansible_collections.kind.kos.plugins.plugin_utils.catalogue import load_catalogue
from ansible_collections.kind.kos.plugins.plugin_utils.hardening import Rules, load_rules
from ansible_collections.kind.kos.plugins.plugin_utils.units import unit_text

_CIS = "xccdf_org.ssgproject.content_profile_cis_level1_server"
_RULE = "xccdf_org.ssgproject.content_rule_"
_XCCDF = "{http://checklists.nist.gov/xccdf/1.2}"
_CONTENT = "/root/ssg/usr/share/xml/scap/ssg/content/ssg-debian13-ds.xml"
# linux-base: without it OpenSCAP takes the node for a container image and leaves most rules out.
_TOOLS = (
    "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update"
    " && apt-get -qq -y --no-install-recommends install lynis ssh-audit openscap-scanner linux-base"
)
# Debian 13's own package has no rules for Debian 13: those of the next release, from the node's own mirror.
_FETCH = """
mkdir -p /root/ssg/state/lists/partial && cd /root/ssg
sed '/^$/,$d; s/^Suites: .*/Suites: forky/' /etc/apt/sources.list.d/debian.sources > forky.sources
apt="-o Dir::Etc::SourceList=/root/ssg/forky.sources -o Dir::Etc::SourceParts=-"
apt="$apt -o Dir::State::Lists=/root/ssg/state/lists"
apt-get -qq $apt update && apt-get -qq $apt download ssg-debian && dpkg-deb -x ssg-debian_*.deb .
"""
# The scanner reads Debian's own files and nothing beside them: it is shown what the programs themselves make of both.
_COUNTS = """
mkdir -p /root/counts && cd /root/counts
sshd -T > sshd_config
systemd-analyze cat-config --no-pager systemd/journald.conf |
  awk -F= '/^[A-Z]/ { value[$1] = $2 } END { for (key in value) print key "=" value[key] }' > journald.conf
cat /etc/security/pwquality.conf /etc/security/pwquality.conf.d/*.conf > pwquality.conf 2> /dev/null || true
{ cat /etc/fstab; findmnt -rno SOURCE,TARGET,FSTYPE,OPTIONS /dev/shm | sed 's/$/ 0 0/'; } > fstab
for file in /etc/ssh/sshd_config /etc/systemd/journald.conf /etc/security/pwquality.conf /etc/fstab; do
  test ! -e $file || mount --bind "${file##*/}" $file
done
"""
# What a node fills in; systemd-analyze refuses a command that does not begin with a slash.
_TOKEN = re.compile("@(?:kos:[^@]*|venv)@")
# devsec.hardening 10.6.0 (os and ssh) on the same kind of node, measured once.
PEER = {"lynis index": ("63", "78"), "ssh-audit fail / warn": ("6 / 13", "1 / 5")}
# A system unit of kOS beyond this exposure needs a reason in its manifest.
EXPOSED = 2.0
GOALS = {
    "nspawn": {"lynis index": ">= 85"},
    "vm": {"lynis index": ">= 88"},
}
_ALWAYS = {
    "  beside the exceptions": ">= 95 %",
    "ssh-audit fail / warn": "0 / 0",
    "units beyond 2.0": "each with a reason",
}
# What is asked for before and after, and the name of the node that gets it.
LEVELS: dict[str, dict[str, object]] = {
    "none": {"hardening": {"level": "none"}, "intrusion_detection": "none"},
    "strict": {"hardening": {"level": "strict"}, "intrusion_detection": "comprehensive"},
}


@dataclass(frozen=True)
class Figures:
    """What the scanners said of one state of the node, by the name of the figure."""

    rows: dict[str, str]
    notes: list[str]


def _lynis(node: str, _driver: str) -> tuple[dict[str, str], list[str]]:
    ssh("lynis audit system --quick --no-colors > /root/lynis.out 2>&1 || true", node=node)
    (index,) = re.findall(r"^hardening_index=(\d+)", ssh("cat /var/log/lynis-report.dat", node=node), re.MULTILINE)
    lost = lost_points(ssh("cat /var/log/lynis.log", node=node))
    worst = sorted(lost.items(), key=lambda row: -row[1])
    return {"lynis index": index}, [
        f"lynis: {sum(lost.values())} points missing: {', '.join(f'{name} {points}' for name, points in worst)}"
    ]


def lost_points(log: str) -> dict[str, int]:
    """The points that lynis did not give, by its test."""
    lost: dict[str, int] = {}
    test, had, possible = "", 0, 0
    for line in log.splitlines():
        if begun := re.search(r"Performing test ID (\S+)", line):
            test = begun[1]
        if given := re.search(r"Currently having (\d+) points \(out of (\d+)\)", line):
            missing = int(given[2]) - possible - (int(given[1]) - had)
            had, possible = int(given[1]), int(given[2])
            if missing:
                lost[test] = lost.get(test, 0) + missing
    return lost


def _ssh_audit(node: str, _driver: str) -> tuple[dict[str, str], list[str]]:
    found = json.loads(ssh("ssh-audit --json localhost || true", node=node))
    levels = {"fail": 0, "warn": 0}
    for kind in ("kex", "key", "enc", "mac"):
        for row in found[kind]:
            for level in levels:
                levels[level] += bool(row.get("notes", {}).get(level))
    return {"ssh-audit fail / warn": f"{levels['fail']} / {levels['warn']}"}, []


def _units(node: str, _driver: str) -> tuple[dict[str, str], list[str]]:
    """The exposure of every systemd unit of the catalogue, whether this node runs it or not."""
    catalogue = load_catalogue(ROOT / "services")
    units = {
        unit.name: (unit, _TOKEN.sub("/", unit_text(unit, service, catalogue)))
        for service in catalogue.services.values()
        for unit in service.units
        if unit.exec is not None
    }
    script = "".join(
        f"cat > /root/units/{name} <<'END_OF_UNIT'\n{text}END_OF_UNIT\n" for name, (_unit, text) in units.items()
    )
    ssh("rm -rf /root/units && mkdir /root/units && sh", script, node)
    said = ssh("systemd-analyze security --no-pager --offline=true /root/units/*", node=node)
    scores = {name: float(score) for name, score in re.findall(r"exposure level for (\S+): ([0-9.]+)", said)}
    if missing := sorted({*units} - {*scores}):
        sys.exit(f"systemd-analyze says nothing of {', '.join(missing)}")
    beyond = {name: score for name, score in scores.items() if score > EXPOSED}
    rows = {"units": str(len(scores)), "units beyond 2.0": str(len(beyond))}
    return rows, [
        f"{name} {score}: {'; '.join(dict.fromkeys(row.reason for row in units[name][0].sandbox)) or 'no reason'}"
        for name, score in sorted(beyond.items(), key=lambda row: -row[1])
    ]


def _openscap(node: str, driver: str) -> tuple[dict[str, str], list[str]]:
    """What passes by what the scanner reads, and by what counts; and of that, what no exception accounts for."""
    first = _verdicts(node)
    passed = {name for name, verdict in first.items() if verdict == "pass"}
    failed = {name for name, verdict in first.items() if verdict in ("fail", "error", "unknown")}
    again = _verdicts(node, _COUNTS, sorted(failed))
    elsewhere = {name for name in failed if again.get(name) == "pass"}
    reasons = exceptions(load_rules(ROOT / "services"), shared_kernel=driver == "nspawn")
    excepted = {name for name in failed - elsewhere if name in reasons}
    count, applicable = len(passed), len(passed) + len(failed)
    rows = {
        "OpenSCAP CIS level 1": _share(count, applicable),
        "  by the settings that count": _share(count + len(elsewhere), applicable),
        "  exceptions, each with a reason": str(len(excepted)),
        "  beside the exceptions": _share(count + len(elsewhere), applicable - len(excepted)),
    }
    said: dict[str, list[str]] = {"set in a file that the scanner does not read": sorted(elsewhere)}
    for name in sorted(failed - elsewhere):
        said.setdefault(reasons.get(name, "no reason"), []).append(name)
    return rows, [f"OpenSCAP fails {', '.join(names)}: {why}" for why, names in sorted(said.items())]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} % ({part} of {whole})"


def _verdicts(node: str, before: str = "", only: list[str] | None = None) -> dict[str, str]:
    """What OpenSCAP says of each rule, by its name; `before` is a script whose mounts it alone sees."""
    rules = " ".join(f"--rule {_RULE}{name}" for name in only or [])
    scan = f"oscap xccdf eval --profile {_CIS} {rules} --results /root/results.xml {_CONTENT}"
    ssh(
        "rm -f /root/results.xml; unshare --mount sh -e",
        f"{before}\n{scan} > /root/oscap.out 2>&1 < /dev/null || true\n",
        node,
    )
    tree = ElementTree.fromstring(ssh("cat /root/results.xml", node=node))  # noqa: S314
    return {
        row.get("idref", "").removeprefix(_RULE): row.findtext(f"{_XCCDF}result", "")
        for row in tree.iter(f"{_XCCDF}rule-result")
    }


def exceptions(rules: Rules, shared_kernel: bool) -> dict[str, str]:
    """Why a rule of OpenSCAP may fail on a hardened node, by its name."""
    reasons = {name: row.why for row in rules.left_out for name in row.scanner}
    if shared_kernel:
        why = "a container has its host's kernel, and may not set this; a machine of its own passes"
        settings = [name for rule in rules.rules if rule.needs == "kernel" for name in rule.sysctl]
        reasons |= {"sysctl_" + name.replace(".", "_"): why for name in settings}
        clock = ("service_timesyncd_enabled", "ntp_single_service_active")
        reasons |= dict.fromkeys(clock, "a container has its host's clock, and systemd-timesyncd does not start in one")
    return reasons


# ssh-audit last: sshd makes an address that behaves like it wait (PerSourcePenalties).
SCANS: dict[str, Callable[[str, str], tuple[dict[str, str], list[str]]]] = {
    "openscap": _openscap, "lynis": _lynis, "units": _units, "ssh-audit": _ssh_audit,
}  # fmt: skip


def _audited(level: str, profile: str, driver: str, chosen: list[str]) -> Figures:
    """The figures of a node that is deployed at `level`."""
    node = f"audit-{level}"
    ssh(_TOOLS, node=node)
    if "openscap" in chosen:
        ssh("sh -e", _FETCH, node)
    with tempfile.TemporaryDirectory() as folder:
        layer = Path(folder) / "site.yaml"
        layer.write_text(yaml.safe_dump({"security": LEVELS[level]}))
        run("kai", "deploy", "-i", INVENTORY, "--limit", node, "--profile", profile, "--site", str(layer))
    figures = Figures({}, [])
    for name in chosen:
        began = time.monotonic()
        found, said = SCANS[name](node, driver)
        figures.rows.update(found)
        figures.notes.extend(said)
        print(f"{level}: {name} after {time.monotonic() - began:.0f} s: {found}", flush=True)
    return figures


def main() -> None:
    """Deploy and scan, before and after at once; print both beside each other and beside the peer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="development")
    parser.add_argument("--driver", choices=[*GOALS], default="nspawn", help="kind of the lab's nodes")
    parser.add_argument("--level", choices=[*LEVELS], action="append", help="default: all")
    parser.add_argument("scans", nargs="*", choices=[*SCANS, []], help="default: all")
    options = parser.parse_args()
    chosen = [name for name in SCANS if not options.scans or name in options.scans]
    levels = options.level or [*LEVELS]
    try:
        run("kai", "lab", "up", *(f"audit-{level}" for level in levels), "--driver", options.driver)
        with ThreadPoolExecutor() as pool:
            jobs = {level: pool.submit(_audited, level, options.profile, options.driver, chosen) for level in levels}
            figures = {level: job.result() for level, job in jobs.items()}
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd[-1]} failed:\n{error.stdout}{error.stderr}")
    finally:
        run("kai", "lab", "down")
    _print(figures, {**GOALS[options.driver], **_ALWAYS})


def _print(figures: dict[str, Figures], goals: dict[str, str]) -> None:
    console = Console()
    table = Table("figure", "goal", "peer: before", "peer: after", box=None, pad_edge=False)
    for level in figures:
        table.add_column(f"kOS, level {level}")
    for name in next(iter(figures.values())).rows:
        values = [found.rows[name] for found in figures.values()]
        table.add_row(name, goals.get(name, ""), *PEER.get(name, ("–", "–")), *values)
    console.print(table)
    for level, found in figures.items():
        for note in found.notes:
            console.print(f"{level}: {note}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
