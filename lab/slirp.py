# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""slirp4netns: the lab's way out, in user space, so that nothing of this machine's network is changed."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
from typing import Any

from . import cgroup
from .command import PATH
from .errors import LabError
from .identity import Lab

TAP = "tap0"
GATEWAY = "10.0.2.2"
NAMESERVER = "10.0.2.3"
ADDRESS = "10.0.2.100"
_TIMEOUT = 10.0


def running(lab: Lab) -> bool:
    """Whether the lab has its way out."""
    return cgroup.populated(f"{lab.cgroup}/network")


def start(lab: Lab) -> None:
    """Give the namespace its interface to the world. Raises LabError with what slirp4netns said."""
    (lab.run / "slirp.sock").unlink(missing_ok=True)
    group = cgroup.make(f"{lab.cgroup}/network")
    ready, says_ready = os.pipe()
    command = ["slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", "--netns-type=path"]
    command += [f"--api-socket={lab.run / 'slirp.sock'}", f"--ready-fd={says_ready}", str(lab.netns_path), TAP]
    log = lab.run / "slirp.log"
    with log.open("wb") as output, os.fdopen(ready, "rb") as readable:
        subprocess.run(
            ["setsid", "--fork", *cgroup.inside(group, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[says_ready],
            env={**os.environ, "PATH": PATH},
            check=True,
        )
        os.close(says_ready)
        answered, _, _ = select.select([readable], [], [], _TIMEOUT)
        if not answered or readable.read(1) != b"1":
            raise LabError(f"slirp4netns did not start: {log.read_text(errors='replace').strip()}")


def add_forward(lab: Lab, listen: str, port: int) -> int:
    """Open `listen`:`port` (TCP) of this machine towards the namespace; gives slirp's id of it. Raises LabError."""
    arguments = {"proto": "tcp", "host_addr": listen, "host_port": port, "guest_addr": ADDRESS, "guest_port": port}
    try:
        return int(_ask(lab, "add_hostfwd", arguments)["id"])
    except LabError as error:
        raise LabError(f"port {port} of {listen} could not be opened; is it in use? ({error})") from error


def remove_forward(lab: Lab, slirp_id: int) -> None:
    """Close a forwarded port. Raises LabError."""
    _ask(lab, "remove_hostfwd", {"id": slirp_id})


def _ask(lab: Lab, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT)
        try:
            connection.connect(str(lab.run / "slirp.sock"))
            connection.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
            connection.shutdown(socket.SHUT_WR)
            answer = json.loads(b"".join(iter(lambda: connection.recv(4096), b"")))
        except (OSError, ValueError) as error:
            raise LabError(f"slirp4netns does not answer: {error}") from error
    if "error" in answer:
        raise LabError(str(answer["error"].get("desc", answer["error"])))
    return dict(answer["return"])
