# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node is, as one JSON document: run there as root, in one round trip.

It asks systemd, ss, nft, lsblk, ssh-keygen and the kernel, and uses no code of kOS's: the Merkle root is computed anew.
"""

from __future__ import annotations

import glob
import grp
import hashlib
import json
import os
import pwd
import re
import stat
import subprocess
import tempfile

STATE = "/var/lib/kos"
CURRENT = os.path.realpath(f"{STATE}/current")
PROPERTIES = (
    "Id,LoadState,ActiveState,UnitFileState,MainPID,ControlGroup,MemoryMax,TasksMax,User,FragmentPath,"
    "NoNewPrivileges,NRestarts"
)  # fmt: skip
# Of a process: who it is, and what it could still become.
IDENTITY = {"Uid": "uids", "CapEff": "capabilities", "NoNewPrivs": "no_new_privileges", "Seccomp": "seccomp"}


def said(*argv: str, given: bytes | None = None) -> str:
    """What a program prints; its exit code is not looked at."""
    return subprocess.run(argv, input=given, capture_output=True, check=False).stdout.decode(errors="replace")


def document(path: str, default: object = None) -> object:
    """A JSON file, or `default` where there is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError:
        return default


def text(path: str) -> str:
    """A small file, empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def place(manifest: dict) -> dict:
    """The machine under the node: what differs between nodes that are otherwise alike."""
    return {
        "name": os.uname().nodename,
        "addresses": said("hostname", "-I").split(),
        "container": said("systemd-detect-virt", "--container").strip(),
        "machine": said("systemd-detect-virt", "--vm").strip(),
        "boot": text("/proc/sys/kernel/random/boot_id").strip(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "crypt": {path: encrypted(path) for path in held(manifest)},
        "swap": [row.split()[0] for row in text("/proc/swaps").splitlines()[1:]],
    }


def held(manifest: dict) -> list[str]:
    """The folders whose content is the node's own: its data, its secrets and its log."""
    volumes = [row["path"] for row in manifest["volumes"] if os.path.isdir(row["path"])]
    return sorted({STATE, "/var/log", "/home", *volumes})


def encrypted(path: str) -> bool:
    """Whether the kernel reaches what is at `path` through dm-crypt alone."""
    source = said("findmnt", "--noheadings", "--nofsroot", "--first-only", "--output", "SOURCE", "--target", path)
    return "crypt" in said("lsblk", "--noheadings", "--inverse", "--list", "--output", "TYPE", source.strip()).split()


def units(names: list[str]) -> dict:
    """What systemd says of them."""
    found = {}
    for block in said("systemctl", "show", f"--property={PROPERTIES}", "--", *names).strip().split("\n\n"):
        row = dict(line.partition("=")[::2] for line in block.splitlines())
        found[row.get("Id", "")] = {**row, "kernel": limits(row.get("ControlGroup", ""))}
    return found


def limits(group: str) -> dict:
    """The limits that the kernel enforces on a control group."""
    folder = f"/sys/fs/cgroup{group}"
    return {name: text(f"{folder}/{name}").strip() for name in ("memory.max", "pids.max")} if group else {}


def exposures(names: list[str]) -> dict:
    """How exposed each unit is, as systemd-analyze sees it: 0 is nothing, 10 is all."""
    told = said("systemd-analyze", "security", "--no-pager", *names)
    return {name: float(score) for name, score in re.findall(r"exposure level for (\S+): ([0-9.]+)", told)}


def processes() -> list[dict]:
    """Every process of a kOS unit, whoever started it."""
    found = []
    for folder in glob.glob("/proc/[0-9]*"):
        unit = re.search(r"/(kos-[^/]+\.service)", text(f"{folder}/cgroup"))
        status = dict(line.partition(":\t")[::2] for line in text(f"{folder}/status").splitlines())
        if unit and status.get("Uid"):
            row = {name: status.get(key, "") for key, name in IDENTITY.items()}
            found.append({"unit": unit[1], "name": status["Name"], **row})
    return found


def listeners() -> list[dict]:
    """Every listening socket and who holds it."""
    found = []
    for line in said("ss", "-Htulnp").splitlines():
        columns = line.split()
        address, _, port = columns[4].rpartition(":")
        held_by = re.search(r'"([^"]+)"', line)
        bare = address.split("%")[0].strip("[]")
        row = {"protocol": columns[0], "address": bare, "port": int(port), "process": held_by[1] if held_by else ""}
        if row not in found:
            found.append(row)
    return found


def accounts() -> dict:
    """The users whose name is kOS's: what they may do, and whether they could log in."""
    hashes = dict(line.split(":")[:2] for line in text("/etc/shadow").splitlines())
    return {
        row.pw_name: {
            "uid": row.pw_uid,
            "shell": row.pw_shell,
            "home": row.pw_dir,
            "locked": hashes.get(row.pw_name, "!").startswith(("!", "*")),
            "groups": sorted(group.gr_name for group in grp.getgrall() if row.pw_name in group.gr_mem),
        }
        for row in pwd.getpwall()
        if row.pw_name.startswith("kos-")
    }


def described(path: str) -> dict | None:
    """Mode and owner of one path; None where nothing is there."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    owner = next((row.pw_name for row in pwd.getpwall() if row.pw_uid == status.st_uid), str(status.st_uid))
    return {"mode": stat.S_IMODE(status.st_mode), "user": owner, "bytes": status.st_size}


def paths(manifest: dict) -> dict:
    """Everything that only some may read."""
    wanted = [f"{STATE}/secrets", f"{STATE}/identity/node", *(row["path"] for row in manifest["volumes"])]
    wanted += [f"{STATE}/secrets/{row['service']}.{row['name']}.cred" for row in manifest["secrets"]]
    wanted += [row["path"] for row in manifest["files"] if "sealed" in row]
    return {path: described(path) for path in wanted}


def merkle(folder: str) -> str:
    """The SHA3-256 Merkle root of a stored generation, as docs/trust.md describes it."""
    leaves = []
    for top, _folders, names in os.walk(folder):
        for name in names:
            path = os.path.join(top, name)
            inside = os.path.relpath(path, folder)
            if inside not in ("pinned", "signature"):
                with open(path, "rb") as stream:
                    leaves.append((inside, hashlib.sha3_256(stream.read()).digest()))
    row = [hashlib.sha3_256(b"\0" + name.encode() + b"\0" + content).digest() for name, content in sorted(leaves)]
    while len(row) > 1:
        pairs = [row[at : at + 2] for at in range(0, len(row), 2)]
        row = [hashlib.sha3_256(b"\1" + b"".join(pair)).digest() if len(pair) == 2 else pair[0] for pair in pairs]
    return row[0].hex()


def signer(identity: str) -> str:
    """Who of the trusted signed a generation, as ssh-keygen sees it; empty where nobody did."""
    listed, signature = f"{STATE}/allowed_signers", f"{CURRENT}/signature"
    name = said("ssh-keygen", "-Y", "find-principals", "-s", signature, "-f", listed).strip()
    line = ["ssh-keygen", "-Y", "verify", "-f", listed, "-I", name, "-n", "kos-generation", "-s", signature]
    verified = subprocess.run(line, input=f"{identity}\n".encode(), capture_output=True, check=False)
    return name if name and verified.returncode == 0 else ""


def generation(manifest: dict) -> dict:
    """What is current, and whether it is settled."""
    identity = merkle(CURRENT)
    return {
        "id": identity,
        "number": int(os.path.basename(CURRENT)),
        "signed_by": signer(identity),
        # The same signature under another id is nobody's, or the proof would prove nothing.
        "forged_by": signer(identity[::-1]),
        "history": document(f"{STATE}/history.json", []),
        "open": os.path.exists(f"{STATE}/transaction"),
        "pending": os.path.exists(f"{STATE}/pending"),
        "deadlines": said("systemctl", "list-units", "--all", "--plain", "--no-legend", "kos-deadline-*").splitlines(),
        "half_made": [name for name in os.listdir(f"{STATE}/generations") if name.startswith(".")],
        "own_words": own_words(),
        "missing": sorted(row["path"] for row in manifest["files"] if not os.path.lexists(row["path"])),
    }


def own_words() -> list[str]:
    """Words of this one machine that lie in the generation, which is to be the same on every machine."""
    words = [os.uname().nodename, *said("hostname", "-I").split()[:1], text("/etc/machine-id").strip()]
    with tempfile.NamedTemporaryFile("w", suffix=".words") as listed:
        listed.write("\n".join(filter(None, words)))
        listed.flush()
        return said("grep", "-rwoFf", listed.name, f"{CURRENT}/tree", f"{CURRENT}/sealed").split("\n")[:-1]


def packages() -> dict:
    """Every installed package and its version."""
    rows = said("dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\\n").splitlines()
    return {name: version for state, name, version in map(str.split, rows) if state == "installed"}


def observed() -> dict:
    """The whole document."""
    manifest = document(f"{CURRENT}/manifest.json")
    assert isinstance(manifest, dict), f"{CURRENT}/manifest.json is no manifest"
    names = [row["name"] for row in manifest["units"]]
    services = [name for name in names if name.endswith(".service")]
    masked = [row["path"].rpartition("/")[2] for row in manifest["files"] if row.get("link") == "/dev/null"]
    return {
        "manifest": manifest,
        "node": document(f"{STATE}/node.json", {}),
        "ledger": document(f"{STATE}/ledger.json", {}),
        "place": place(manifest),
        "generation": generation(manifest),
        "units": units([*names, *(name for name in masked if "@" not in name)]),
        "masked": masked,
        "exposures": exposures(services),
        "failed": said("systemctl", "--failed", "--plain", "--no-legend").splitlines(),
        "processes": processes(),
        "listeners": listeners(),
        "accounts": accounts(),
        "paths": paths(manifest),
        "packages": packages(),
        "dpkg": said("dpkg", "--audit"),
        "firewall": json.loads(said("nft", "--json", "list", "table", "inet", "kos") or "{}"),
        "status": json.loads(said("python3", "-I", "-B", f"{CURRENT}/node", "status") or "{}"),
    }


if __name__ == "__main__":
    print(json.dumps(observed()))
