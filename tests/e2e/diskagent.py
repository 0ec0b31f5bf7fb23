# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first process of a machine for disk tests: it runs what it is told to on a serial port, one line at a time."""

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback

PORT = "/dev/virtio-ports/kos.agent"


def main():
    """As the first process it only waits: for the agent, and for all that others have left behind as they ended."""
    if agent := os.fork():
        while os.wait()[0] != agent:
            pass
        return 1
    sys.path.insert(0, "/run/code/collections")
    with open(PORT, "r+b", buffering=0) as port:
        port.write(b"{}\n")
        pending = b""
        while True:
            piece = os.read(port.fileno(), 1 << 20)
            pending += piece
            while b"\n" in pending:
                line, _newline, pending = pending.partition(b"\n")
                answer = json.dumps(handle(json.loads(line))).encode() + b"\n"
                while answer:
                    answer = answer[os.write(port.fileno(), answer) :]


def handle(asked):
    """Run a script, or have a module carry out what it is asked, and what they said and came to."""
    return called(asked["module"], asked["given"]) if "module" in asked else scripted(asked)


def called(name, given):
    """As a program of its own would, without the seconds of its imports: each time in a process of its own."""
    module = importlib.import_module(name)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            code = module.carry_out(given)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(writing)
    said = b"".join(iter(lambda: os.read(reading, 1 << 16), b""))
    os.close(reading)
    _pid, status = os.waitpid(child, 0)
    return {"code": os.waitstatus_to_exitcode(status), "said": said.decode(errors="replace")}


def scripted(asked):
    process = subprocess.Popen(
        ["bash", "-c", asked["script"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True, cwd="/run/code",
    )  # fmt: skip
    try:
        said, _ = process.communicate(asked.get("stdin", "").encode(), timeout=asked["seconds"])
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
    return {"code": process.returncode, "said": said.decode(errors="replace")}


if __name__ == "__main__":
    sys.exit(main())
