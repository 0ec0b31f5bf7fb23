# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service as a container: how long an update leaves it silent, and what its network and the gateway cost."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from measure import BIN, INVENTORY, NODE, ROOT, Result, run, ssh

sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from unitimages import Images

LAYER = """\
services: {{cache: redis, vector_db: null, llm_backend: llama_cpp}}
orchestration: {{substrate: {{valkey: {}}}}}
"""
# Asks until it is told to stop; prints the longest silence in seconds.
WATCH = """
import http.client, os, sys, time
last, worst = time.monotonic(), 0.0
while not os.path.exists("/tmp/bench-stop"):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=2)
        connection.request("GET", "/health")
        if connection.getresponse().status == 200:
            worst, last = max(worst, time.monotonic() - last), time.monotonic()
    except OSError:
        pass
    finally:
        connection.close()
    time.sleep(0.01)
print(max(worst, time.monotonic() - last))
"""
# Seconds for a number of round trips, one after the other.
PINGS = """
import socket, time
connection = socket.create_connection(("127.0.0.1", 6379))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
began = time.monotonic()
for _ in range(5000):
    connection.sendall(b"PING\\r\\n")
    connection.recv(64)
print(time.monotonic() - began)
"""
REQUESTS = """
import http.client, ssl, sys, time
port, path = int(sys.argv[1]), sys.argv[2]
if port == 8080:
    connection = http.client.HTTPConnection("127.0.0.1", port)
else:
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=ssl._create_unverified_context())
headers = {"Authorization": "Bearer " + sys.argv[3]} if len(sys.argv) > 3 else {}
began = time.monotonic()
for _ in range(500):
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, answer.status
print(time.monotonic() - began)
"""


class Benchmark:
    """What the images of the end-to-end tests need of a lab."""

    environment: ClassVar[dict[str, str]] = {}


def containers(times: int) -> list[Result]:
    """Downtime of an update against a mere restart; round trips into a container against those to a packaged daemon."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ |= {"KOS_UNIT_STORE": str(place / "units"), "KOS_SITE_LOCK": str(place / "images.lock")}
        run("kai", "unit", "build", "llama_cpp", "valkey")
        run("kai", "lab", "down", NODE)
        run("kai", "lab", "up", NODE)
        _deploy(place, "deb")
        packaged = [_seconds(PINGS) for _ in range(times)]
        _deploy(place, "container")
        contained = [_seconds(PINGS) for _ in range(times)]
        direct = [_seconds(REQUESTS, "8080", "/health") for _ in range(times)]
        gateway = [_seconds(REQUESTS, "443", "/") for _ in range(times)]
        silent = [_silence_of_update(place, number) for number in range(times)]
        restart = [_silence(lambda: ssh("systemctl restart kos-llama-cpp")) for _ in range(times)]
    middle = statistics.median
    note = f"silent for {middle(silent):.1f} s at an update (goal ≤ 3 s), {middle(restart):.1f} s at a restart"
    per = middle(contained) / 5000 * 1e6
    return [
        _ratio("silence at a container's update / at its restart", "–", silent, restart, note),
        _ratio("5,000 round trips to Valkey: container / package", "–", contained, packaged, f"{per:.0f} µs each"),
        _ratio("500 requests: through the gateway (its page) / to the container (its health)", "–", gateway, direct),
    ]


def _deploy(place: Path, substrate: str) -> None:
    layer = place / "site.yaml"
    layer.write_text(LAYER.format(substrate))
    run("kai", "deploy", "-i", INVENTORY, "--limit", NODE, "--profile", "development", "--site", str(layer))


def _seconds(script: str, *words: str) -> float:
    return float(ssh(f"python3 - {' '.join(words)} <<'EOF'\n{script}\nEOF"))


def _silence_of_update(place: Path, number: int) -> float:
    images = Images(Benchmark(), place)
    images.use("llama_cpp", images.variant("llama_cpp", Labels={"update": str(number)}))
    return _silence(lambda: _deploy(place, "container"))


def _silence(act: Callable[[], object]) -> float:
    ssh("rm -f /tmp/bench-stop")
    argv = [BIN / "kai", "lab", "ssh", NODE, f"python3 - <<'EOF'\n{WATCH}\nEOF"]
    environment = {**os.environ, "KOS_LAB_ID": "bench"}
    watcher = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    time.sleep(2)
    act()
    time.sleep(1)
    ssh("touch /tmp/bench-stop")
    return float(watcher.communicate(timeout=60)[0])


def _ratio(name: str, goal: str, first: list[float], second: list[float], note: str = "") -> Result:
    ratios = [a / b for a, b in zip(first, second, strict=True)]
    return Result(name, goal, ratios, ratios, note)
