# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's own tools: dpkg, apt-get, systemctl, sysusers. Every call takes a list, never a shell line."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .files import NodeError, Root

_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "UCF_FORCE_CONFFOLD": "1"}
# Which services restart, and when, is the transaction's business (needrestart(1)).
_ENVIRONMENT["NEEDRESTART_SUSPEND"] = "kos"
_APT = ["apt-get", "-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold"]
_APT += ["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]
_INSTALLED = re.compile(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ", re.MULTILINE)
SHOWN = "Id,LoadState,ActiveState,NRestarts,MemoryCurrent,ControlGroup"


class CommandFailed(NodeError):
    """A tool failed; the text holds the command and the end of what it said."""


@dataclass(frozen=True)
class Source:
    """Where apt takes packages from: its options for that, and what to say where it has not got one.

    `local`: it reads them where they lie, and nothing is downloaded.
    """

    options: tuple[str, ...] = ()
    local: bool = False
    hint: str = "connect it to its package mirror, or deploy from a bundle"


USUAL = Source()


def run(
    argv: list[str],
    stdin: bytes | None = None,
    check: bool = True,
    timeout: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run `argv` with a plain environment and what `environment` adds, for at most `timeout` seconds.

    Raises CommandFailed when it cannot be run, runs too long, or fails and `check` is set.
    """
    known = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **_ENVIRONMENT, **(environment or {})}
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, env=known, check=False, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{' '.join(argv[:3])} … did not end within {timeout:.0f} s") from error
    except OSError as error:
        raise CommandFailed(f"{argv[0]}: {error.strerror}") from error
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise CommandFailed(f"{' '.join(argv[:3])} … failed ({done.returncode}): " + " / ".join(said[-6:]))
    return done


def in_root(root: Root, argv: list[str]) -> list[str]:
    """`argv` as it must be run for `root`."""
    return argv if root.path == "/" else ["chroot", root.path, *argv]


def package_states(root: Root) -> dict[str, str]:
    """Dpkg's status (``installed``, ``config-files``, ``half-configured`` …) by package; one read of its database."""
    return _shown(root, "db:Status-Status")


def package_versions(root: Root) -> dict[str, str]:
    """The version of every package that is installed, by name."""
    states = package_states(root)
    return {name: version for name, version in _shown(root, "Version").items() if states.get(name) == "installed"}


def _shown(root: Root, field: str) -> dict[str, str]:
    """What dpkg's database says of every package in one of its fields, by package."""
    if not os.path.exists(root.join("/var/lib/dpkg/status")):
        return {}
    folder, form = root.join("/var/lib/dpkg"), f"${{{field}}} ${{Package}}\n"
    rows = run(["dpkg-query", f"--admindir={folder}", "-W", "-f", form]).stdout.decode().splitlines()
    return {name: value for value, name in (row.split(" ") for row in rows)}


def repair_packages(root: Root, source: Source = USUAL) -> None:
    """Finish what an interrupted dpkg left half done; nothing where it left nothing."""
    half = {"half-installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending"}
    interrupted = os.path.isdir(root.join("/var/lib/dpkg/updates")) and os.listdir(root.join("/var/lib/dpkg/updates"))
    if interrupted or half & set(package_states(root).values()):
        run(in_root(root, ["dpkg", "--configure", "--force-confold", "-a"]), check=False)
        run(in_root(root, [*_APT, *source.options, "--fix-broken", "install"]), check=False)


@dataclass(frozen=True)
class Download:
    """A package file that apt would fetch: its name in apt's cache, its size in bytes, and from where."""

    name: str
    size: int
    uri: str


def packages_to_fetch(
    root: Root, packages: Iterable[str], lists: str | None = None, source: Source = USUAL
) -> list[Download]:
    """What installing `packages` would download; refreshes apt's lists only when it must.

    `lists` is a directory to refresh them into instead of the node's own. Raises CommandFailed when no
    source has one of the packages, or when one is not in the cache and no source can be reached.
    """
    command = [*_APT, *source.options, "--print-uris", "install", *sorted(packages)]
    done = run(in_root(root, command), check=False)
    if done.returncode != 0:
        elsewhere = ["-o", f"Dir::State::lists={lists}"] if lists else []
        refresh = run(in_root(root, [*_APT, *source.options, *elsewhere, "update"]), check=False)
        done = run(in_root(root, [*command, *elsewhere]), check=False)
        if done.returncode != 0:
            said = (done.stderr + refresh.stderr).decode(errors="replace").strip().splitlines()
            raise CommandFailed(f"this node cannot get its packages ({source.hint}): " + " / ".join(said[-4:]))
    rows = (line.split(" ") for line in done.stdout.decode().splitlines() if line.startswith("'"))
    return [Download(row[1], int(row[2]), row[0].strip("'")) for row in rows if len(row) >= 3]


def installed_bytes(root: Root, packages: Iterable[str], lists: str | None = None, source: Source = USUAL) -> int:
    """The bytes that installing `packages` (dependencies too) will take, as their maintainers declare them.

    `lists` is the directory that `packages_to_fetch` may have refreshed apt's lists into.
    """
    refreshed = lists is not None and os.path.isdir(os.path.join(lists, "partial"))
    elsewhere = [*source.options, *(["-o", f"Dir::State::lists={lists}"] if refreshed else [])]
    simulated = run(in_root(root, [*_APT, *elsewhere, "--simulate", "install", *sorted(packages)])).stdout.decode()
    chosen = [f"{name}={version}" for name, version in _INSTALLED.findall(simulated)]
    if not chosen:
        return 0
    shown = run(in_root(root, ["apt-cache", *elsewhere, "show", *chosen])).stdout.decode()
    return 1024 * sum(int(size) for size in re.findall(r"^Installed-Size: (\d+)$", shown, re.MULTILINE))


def download_packages(root: Root, packages: Iterable[str], source: Source = USUAL) -> None:
    """Fetch and prove what `install_packages` will need; old lists are refreshed once. Raises CommandFailed."""
    argv = in_root(root, [*_APT, *source.options, "--download-only", "install", *sorted(packages)])
    if run(argv, check=False).returncode != 0:
        run(in_root(root, [*_APT, *source.options, "update"]), check=False)
        if run(argv, check=False).returncode != 0:
            raise CommandFailed(
                f"this node needs {', '.join(sorted(packages))}, which apt neither has in its cache nor can fetch: "
                f"{source.hint}, then run again (nothing was changed)"
            )


def new_packages(root: Root, packages: Iterable[str], source: Source = USUAL) -> dict[str, list[str]]:
    """What installing `packages` would add (dependencies too), and which of it has configuration here already."""
    argv = in_root(root, [*_APT, *source.options, "--simulate", "install", *sorted(packages)])
    lines = run([*argv, "-o", "APT::Get::Show-User-Simulation-Note=false"]).stdout.decode().splitlines()
    states = package_states(root)
    named = sorted({line.split()[1].split(":")[0] for line in lines if line.startswith("Inst ")})
    added = [name for name in named if states.get(name, "not-installed") in ("not-installed", "config-files")]
    return {"added": added, "configured": [name for name in added if states.get(name) == "config-files"]}


def install_packages(root: Root, packages: Iterable[str], source: Source = USUAL) -> None:
    """Install `packages` from what has been downloaded or lies in `source`, marked as nobody's wish but kOS's.

    Who later asks apt for one of them by name takes it over by that (`packages.marked_manual`).
    """
    offline = [] if source.local else ["--no-download"]
    # A root that is not booted is brought to its disk as a whole, once; dpkg need not wait for each file.
    unsafe = ["-o", "Dpkg::Options::=--force-unsafe-io"] if root.path != "/" else []
    run(in_root(root, [*_APT, *source.options, *offline, *unsafe, "--mark-auto", "install", *sorted(packages)]))


def remove_packages(root: Root, added: Iterable[str], configured: Iterable[str]) -> None:
    """Take `added` away again, with their configuration but for those that had some before.

    A package that something else has come to need meanwhile stays.
    """
    _remove_half_unpacked(root, set(added), set(configured))
    repair_packages(root)
    present = {name for name, status in package_states(root).items() if status not in ("not-installed", "config-files")}
    names, ours = sorted(present & set(added)), set(added)
    if _would_remove(root, names) - ours:
        names = [name for name in names if not _would_remove(root, [name]) - ours]
    if _would_remove(root, names) - ours:
        # None of them alone takes a foreign package along, but together they do.
        names = []
    kept = set(configured)
    for verb, wanted in (("purge", [n for n in names if n not in kept]), ("remove", [n for n in names if n in kept])):
        if wanted:
            run(in_root(root, [*_APT, verb, *wanted]))


def _remove_half_unpacked(root: Root, added: set[str], configured: set[str]) -> None:
    """Remove what dpkg was stopped inside of: apt does nothing at all before it has the archive, which may be gone."""
    broken = {name for name, flag in _shown(root, "db:Status-Eflag").items() if flag == "reinstreq"} & added
    force = ["--force-remove-reinstreq", "--force-depends"]
    for verb, names in (("--purge", broken - configured), ("--remove", broken & configured)):
        if names:
            run(in_root(root, ["dpkg", *force, verb, *sorted(names)]))


def _would_remove(root: Root, names: list[str]) -> set[str]:
    """Every package that goes when `names` go."""
    if not names:
        return set()
    lines = run(in_root(root, [*_APT, "--simulate", "purge", *names])).stdout.decode().splitlines()
    return {line.split()[1].split(":")[0] for line in lines if line.startswith(("Purg ", "Remv "))}


def make_users(root: Root) -> None:
    """Create the system users that the generation declares."""
    run(in_root(root, ["systemd-sysusers", "/etc/sysusers.d/kos.conf"]))


def unit_states(names: Iterable[str], properties: str = SHOWN) -> dict[str, dict[str, str]]:
    """What systemd says of each unit, in one call; `properties` must hold ``Id``."""
    wanted = list(names)
    if not wanted:
        return {}
    text = run(["systemctl", "show", f"--property={properties}", "--", *wanted], check=False).stdout.decode()
    blocks = (dict(line.partition("=")[::2] for line in block.splitlines()) for block in text.split("\n\n"))
    found = {block["Id"]: block for block in blocks if "Id" in block}
    return {name: found.get(name, {}) for name in wanted}


def memory_of(state: Mapping[str, str]) -> int | None:
    """Bytes that a unit uses, from its `unit_states`: the kernel's account, else its processes' resident memory."""
    counted = state.get("MemoryCurrent", "")
    if counted.isdecimal() and int(counted) < 2**62:
        return int(counted)
    resident = [_resident_bytes(pid) for pid in _processes(state.get("ControlGroup", ""))]
    return sum(resident) if resident else None


def _processes(control_group: str) -> list[str]:
    found: list[str] = []
    # A container's processes are in groups below its unit's.
    for folder, _folders, _names in os.walk(f"/sys/fs/cgroup{control_group}") if control_group else ():
        with contextlib.suppress(OSError), open(f"{folder}/cgroup.procs", encoding="ascii") as stream:
            found += stream.read().split()
    return found


def _resident_bytes(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def reload_unit(unit: str) -> None:
    """Make a daemon read its configuration again. Raises CommandFailed when it refuses it."""
    try:
        run(["systemctl", "reload", "--", unit], timeout=60)
    except CommandFailed as error:
        said = [line for line in journal_tail(unit) if "rror" in line] or [str(error)]
        raise CommandFailed(f"{unit} refuses its new configuration: {said[-1]}") from error


def systemctl(verb: str, units: Iterable[str], *options: str) -> None:
    """One systemctl call for all of `units`; the gate judges the outcome."""
    names = list(units)
    if names:
        run(["systemctl", *options, verb, "--", *names], check=False)


def stop(units: Iterable[str]) -> None:
    """Stop `units` for good.

    One that is being restarted just then starts those it needs again, after they were stopped: hence twice.
    """
    names = list(units)
    systemctl("stop", names)
    systemctl("stop", names)


def wait_for_jobs(units: Iterable[str], patience: float = 300) -> None:
    """Until systemd has no job left for any of `units`, or `patience` seconds have passed; the gate judges then."""
    names, until = list(units), time.monotonic() + patience
    while time.monotonic() < until:
        if not any(state.get("Job") for state in unit_states(names, "Id,Job").values()):
            return
        time.sleep(0.2)


def journal_tail(unit: str, lines: int = 12) -> list[str]:
    """The last lines that `unit` logged."""
    argv = ["journalctl", "--unit", unit, "--lines", str(lines), "--no-pager", "--output", "cat"]
    return run(argv, check=False).stdout.decode(errors="replace").splitlines()


class Accounts:
    """The users and groups of a root, read once."""

    def __init__(self, root: Root) -> None:
        self._users = _ids(root.join("/etc/passwd"))
        self._groups = _ids(root.join("/etc/group"))

    def ids(self, owner: str, group: str) -> tuple[int, int]:
        """The numeric ids of `owner` and `group`; -1 where one does not exist yet."""
        return self._users.get(owner, -1), self._groups.get(group, -1)


def _ids(path: str) -> Mapping[str, int]:
    try:
        with open(path, encoding="utf-8") as stream:
            rows = [line.split(":") for line in stream]
    except FileNotFoundError:
        return {"root": 0}
    return {row[0]: int(row[2]) for row in rows if len(row) > 2}
