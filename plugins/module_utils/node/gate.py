# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is it healthy? Probes run side by side, unprivileged, with back-off and a deadline each."""

from __future__ import annotations

import http.client
import os
import pwd
import socket
import ssl
import statistics
import subprocess
import time
import urllib.parse
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from . import images, system
from .files import NodeError

PROBE_USER = "kos-status"
_TIMEOUT = 5.0
# Seconds that the hooks of a service that already answers may take: a member of a cluster catches up first.
_HOOKS = 90.0
CRASHES = 3
# A service is measured this often in a row; it is too slow when it was so in each of the windows.
_SAMPLES = 10
_WINDOWS = 3
_BETWEEN = 0.05
_BETWEEN_WINDOWS = 2.0
# No window begins later than this many seconds after the first.
_MEASURED = 15.0


@dataclass
class Health:
    """The verdict on one service; `seconds` is how long it took to become healthy.

    `answers`: it does, but its hooks have yet to succeed.
    """

    service: str
    healthy: bool
    detail: str
    seconds: float = 0.0
    log: list[str] = field(default_factory=list)
    answers: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The verdict as plain data."""
        return asdict(self)


class ProbeFailed(NodeError):
    """The service did not answer as its manifest says it must."""


def wait_healthy(
    services: list[dict[str, Any]], hooks: bool = False, updated: Collection[str] = (), patience: int = 1
) -> list[Health]:
    """Wait, side by side, until each service is healthy or its deadline, `patience` times as long, has passed.

    `hooks` runs each service's ``post_init`` once it answers. Those that were `updated` are then measured, one
    after the other, against the bounds of their manifests: merely slow is not healthy.
    """
    if not services:
        return []
    with ThreadPoolExecutor(max_workers=len(services)) as pool:
        verdicts = list(pool.map(lambda service: _wait(service, hooks, patience), services))
    if all(health.healthy for health in verdicts):
        for service, health in zip(services, verdicts, strict=True):
            if service["name"] in updated and service.get("bounds"):
                _measure(service, health)
    return verdicts


def _measure(service: dict[str, Any], health: Health) -> None:
    """Turn `health` down where the service stays beyond its bounds; a moment of noise is measured again."""
    until = time.monotonic() + _MEASURED
    for window in range(_WINDOWS):
        if window:
            time.sleep(_BETWEEN_WINDOWS)
        trouble = _beyond(service)
        if not trouble:
            return
        if time.monotonic() > until:
            break
    health.healthy, health.detail = False, f"answers, but not as well as it must: {trouble}"


def _beyond(service: dict[str, Any]) -> str:
    """Which bound one window of probes exceeds, with the figures; nothing where all are kept."""
    bounds, failed = service["bounds"], 0
    taken: list[float] = []
    for _sample in range(_SAMPLES):
        if failed > bounds["error_rate"] * _SAMPLES or sum(row > bounds["latency_ms"] for row in taken) > _SAMPLES / 2:
            break
        began = time.monotonic()
        try:
            probe(service["probe"])
        except ProbeFailed:
            failed += 1
        taken.append(1000 * (time.monotonic() - began))
        time.sleep(_BETWEEN)
    median = statistics.median(taken)
    if failed > bounds["error_rate"] * _SAMPLES:
        return f"{failed} of {len(taken)} probes failed, its bound is {bounds['error_rate']:.0%} of {_SAMPLES}"
    if median > bounds["latency_ms"]:
        return f"its probe took {median:.0f} ms (median of {len(taken)}), its bound is {bounds['latency_ms']} ms"
    return ""


def check_once(services: list[dict[str, Any]]) -> list[Health]:
    """The verdict on each service right now, side by side."""
    if not services:
        return []
    states = system.unit_states(unit for service in services for unit in service["units"])
    with ThreadPoolExecutor(max_workers=len(services)) as pool:
        return list(pool.map(lambda service: _attempt(service, states), services))


def _wait(service: dict[str, Any], hooks: bool, patience: int) -> Health:
    began = time.monotonic()
    deadline = began + patience * (service["probe"] or {}).get("deadline", 30)
    pause = 0.1
    hooked = not hooks
    extended = False
    while True:
        health = _attempt_with_hooks(service, hooked)
        hooked = hooked or health.healthy
        health.seconds = round(time.monotonic() - began, 2)
        if health.answers and not extended:
            deadline, extended = max(deadline, time.monotonic() + patience * _HOOKS), True
        if health.healthy or time.monotonic() + pause > deadline or _keeps_crashing(service):
            break
        time.sleep(pause)
        pause = min(pause * 1.6, 2.0)
    if not health.healthy:
        if _keeps_crashing(service):
            health.detail = f"{' and '.join(service['units'])} keeps crashing"
        health.log = [line for unit in service["units"] for line in system.journal_tail(unit)]
    return health


def _attempt_with_hooks(service: dict[str, Any], hooked: bool) -> Health:
    """A service without a unit of its own (an extension) needs its hooks before its probe can answer."""
    if hooked or not service["hooks"]["post_init"]:
        return _attempt(service)
    try:
        if service["units"]:
            health = _attempt(service)
            if not health.healthy:
                return health
        run_hooks(service, "post_init")
    except ProbeFailed as error:
        return Health(service["name"], False, f"post_init: {error}", answers=bool(service["units"]))
    return _attempt(service)


def run_hooks(service: dict[str, Any], name: str) -> None:
    """Run a service's hooks as its user, in order. Raises ProbeFailed when one fails; those after it are not run."""
    told = {"KOS_SERVICE": service["name"], "KOS_HOOK": name}
    for argv in service["hooks"][name]:
        _run_as(argv, service["hooks"]["user"] or service["user"] or PROBE_USER, told)


def _attempt(service: dict[str, Any], states: dict[str, dict[str, str]] | None = None) -> Health:
    states = states if states is not None else system.unit_states(service["units"])
    for unit in service["units"]:
        state = states.get(unit, {}).get("ActiveState", "unknown")
        if state not in ("active", "reloading"):
            return Health(service["name"], False, f"{unit} is {state}")
    try:
        probe(service["probe"])
    except ProbeFailed as error:
        return Health(service["name"], False, str(error))
    return Health(service["name"], True, "answers" if service["probe"] else "runs")


def _keeps_crashing(service: dict[str, Any]) -> bool:
    states = system.unit_states(service["units"]).values()
    restarts = [int(state.get("NRestarts") or 0) for state in states]
    return any(state.get("ActiveState") == "failed" for state in states) or max([0, *restarts]) >= CRASHES


def probe(spec: dict[str, Any] | None) -> None:
    """Ask the service once. Raises ProbeFailed with what it said instead."""
    if spec is None:
        return
    try:
        if "http" in spec:
            _probe_http(spec["http"])
        elif "tcp" in spec:
            _probe_tcp(spec["tcp"])
        elif "container" in spec:
            _probe_container(spec)
        else:
            _run_as(spec["exec"], PROBE_USER)
    except (OSError, http.client.HTTPException, images.NoImage) as error:
        raise ProbeFailed(str(error) or type(error).__name__) from error


def _probe_http(spec: dict[str, Any]) -> None:
    url = urllib.parse.urlsplit(spec["url"])
    host, port = url.hostname or "127.0.0.1", url.port
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        # The node asks itself over loopback, where its own certificate proves nothing.
        context = ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
    try:
        connection.request("GET", f"{url.path or '/'}{'?' + url.query if url.query else ''}")
        response = connection.getresponse()
        body = response.read(65536).decode(errors="replace")
    finally:
        connection.close()
    if response.status != spec.get("status", 200):
        raise ProbeFailed(f"{spec['url']} answered {response.status}")
    if spec.get("contains", "") not in body:
        raise ProbeFailed(f"{spec['url']} answered without '{spec['contains']}'")


def _probe_tcp(spec: dict[str, Any]) -> None:
    with socket.create_connection((spec["host"], spec["port"]), timeout=_TIMEOUT) as connection:
        if "send" in spec:
            connection.sendall(spec["send"].encode())
        if "expect" in spec:
            answer = connection.recv(4096).decode(errors="replace")
            if spec["expect"] not in answer:
                raise ProbeFailed(f"port {spec['port']} answered {answer[:60]!r}")


def _probe_container(spec: dict[str, Any]) -> None:
    """Run the container's own health command, inside it."""
    name = spec["container"]
    if os.geteuid() != 0:
        # The status page's own user may not look inside; that its systemd unit is active, it has seen.
        return
    cgroup = f"/sys/fs/cgroup/system.slice/{name}.service/runtime"
    argv = ["/usr/bin/podman", "healthcheck", "run", name]
    done = images.as_user(argv, spec["user"], spec["environment"], 2 * _TIMEOUT, cgroup)
    if done.returncode != 0:
        said = (done.stdout or done.stderr).decode(errors="replace").strip().splitlines()
        raise ProbeFailed(said[-1] if said else "its health command failed")


def answer(argv: list[str]) -> str:
    """What a command prints that is run as probes are, unprivileged. Raises ProbeFailed."""
    return _run_as(argv, PROBE_USER)


def _run_as(argv: list[str], user: str, told: dict[str, str] | None = None) -> str:
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        try:
            entry = pwd.getpwnam(user)
        except KeyError as error:
            raise ProbeFailed(f"the user {user} does not exist") from error
        identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", **(told or {})}
    try:
        done = subprocess.run(
            argv, capture_output=True, timeout=2 * _TIMEOUT, env=environment, cwd="/", check=False, **identity
        )
    except subprocess.TimeoutExpired as error:
        raise ProbeFailed(f"{argv[0]} did not end within {2 * _TIMEOUT:.0f} s") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise ProbeFailed(said[-1] if said else f"{argv[0]} ended with {done.returncode}")
    text: str = done.stdout.decode(errors="replace")
    return text
