# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run Ansible for `kai`: the playbooks for what changes, one ad-hoc module for what is asked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..plugins.plugin_utils.assemble import COLLECTION
from ..plugins.plugin_utils.events import VARIABLE

LOCAL = "localhost,"
_KEPT_LOGS = 30
_MEMORY = "/dev/shm"  # noqa: S108 -- the folder in it is ours alone
# Seconds that Ansible has to end when it is told to.
_PATIENCE = 10


@dataclass(frozen=True)
class Target:
    """Which hosts: an inventory (none means the machine `kai` runs on) and a limit."""

    inventory: str | None = None
    limit: str | None = None

    @property
    def local(self) -> bool:
        """Whether the machine `kai` runs on is the target."""
        return self.inventory is None

    def arguments(self) -> list[str]:
        """The options that ansible and ansible-playbook share."""
        where = ["-i", self.inventory] if self.inventory else ["-i", LOCAL, "-c", "local"]
        return [*where, *(["--limit", self.limit] if self.limit else [])]


class AnsibleFailed(Exception):
    """Ansible could not ask the hosts; the text is what it said."""


def program(name: str) -> str:
    """Of Ansible, the one that was installed with kai; else the first on the way."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name


def _environment(**more: str) -> dict[str, str]:
    config = COLLECTION / "ansible.cfg"
    known = {"ANSIBLE_CONFIG": str(config)} if config.exists() and "ANSIBLE_CONFIG" not in os.environ else {}
    return {**os.environ, **known, **more}


def log_path(verb: str) -> Path:
    """Where Ansible's own output of this run goes; the newest few are kept."""
    folder = Path.home() / ".cache" / "kos" / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob("*.log"))[:-_KEPT_LOGS]:
        old.unlink(missing_ok=True)
    return folder / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}-{verb}.log"


@dataclass(frozen=True)
class VaultPassword:
    """The password of the operator's vault: a file (or program) that holds it, or what was typed."""

    file: Path | None = None
    typed: str | None = field(default=None, repr=False)

    @contextlib.contextmanager
    def given(self) -> Iterator[tuple[list[str], tuple[int, ...]]]:
        """Ansible's options for it, and what it inherits: a typed password is on no disk and in no argv."""
        if self.typed is None:
            yield (["--vault-password-file", str(self.file)] if self.file else []), ()
            return
        reader, writer = os.pipe()
        try:
            with open(writer, "wb") as stream:
                stream.write(self.typed.encode())
            yield ["--vault-password-file", f"/dev/fd/{reader}"], (reader,)
        finally:
            os.close(reader)


def as_data(value: Any) -> str:
    """`value` as JSON in which Ansible takes no text for a template."""
    return json.dumps(_marked(value))


def _marked(value: Any) -> Any:
    # Not YAML's `!unsafe`: there the text "13" would become a number.
    if isinstance(value, dict):
        return {str(key): _marked(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(inner) for inner in value]
    return {"__ansible_unsafe": value} if isinstance(value, str) else value


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Make SIGTERM what Ctrl-C is: a KeyboardInterrupt, so that no playbook is left running without us."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Playbook:
    """A running playbook and the stream of its events; `within` is a command line that runs it."""

    def __init__(
        self,
        name: str,
        target: Target,
        variables: dict[str, Any],
        options: list[str] | None = None,
        log: Path | None = None,
        password: VaultPassword | None = None,
        within: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        # In memory where there is a place for that: what is secret in the variables never comes to a disk.
        self._folder = tempfile.TemporaryDirectory(prefix="kai-", dir=_MEMORY if os.path.isdir(_MEMORY) else None)
        self._events = Path(self._folder.name) / "events"
        self._events.touch()
        self.log = log or Path(self._folder.name) / "log"
        argv = [
            *within,
            program("ansible-playbook"),
            str(COLLECTION / "playbooks" / f"{name}.yml"),
            *target.arguments(),
        ]
        hosts = {"kos_hosts": "all"} if target.local else {}
        # In a file: variables may hold what nobody should read in a process list.
        extra = Path(self._folder.name) / "variables.json"
        extra.write_text(as_data({**hosts, **variables}), encoding="utf-8")
        with self.log.open("wb") as stream, (password or VaultPassword()).given() as (vault, descriptors):
            self._process = subprocess.Popen(
                [*argv, "-e", f"@{extra}", *vault, *(options or [])], pass_fds=descriptors,
                stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                env=_environment(**{VARIABLE: str(self._events), **(environment or {})}), cwd=Path.cwd(),
            )  # fmt: skip

    def events(self) -> Iterator[dict[str, Any] | None]:
        """Every event as it comes, None between them (a few a second), until the playbook has ended."""
        with self._events.open(encoding="utf-8") as stream:
            unfinished = ""
            while True:
                ended = self._process.poll() is not None
                unfinished += stream.read()
                *lines, unfinished = unfinished.split("\n")
                yield from (json.loads(line) for line in lines)
                if ended and not lines:
                    return
                if not lines:
                    yield None
                    try:
                        self._process.wait(0.15)
                    except subprocess.TimeoutExpired:
                        continue

    def wait(self) -> int:
        """Ansible's exit code."""
        return self._process.wait()

    def said(self) -> str:
        """The end of what Ansible printed."""
        return "\n".join(self.log.read_text(errors="replace").strip().splitlines()[-15:])

    def interrupt(self) -> None:
        """Stop the playbook; what it switched goes back by itself."""
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def ask(target: Target, playbook: str, variables: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The answer of a playbook's one module by host, and a sentence for each host that could not be asked.

    Raises AnsibleFailed when none answered.
    """
    run = Playbook(playbook, target, variables)
    events = [event for event in run.events() if event]
    code = run.wait()
    failed = [f"{event['host']}: {event['msg']}" for event in events if "msg" in event]
    answers = {event["host"]: event["answer"] for event in events if "answer" in event}
    if not answers:
        raise AnsibleFailed("\n".join(failed) or (nobody(target) if code == 0 else run.said()))
    return answers, failed


def nobody(target: Target) -> str:
    """What to say when no host was reached at all."""
    limit = f" and the limit {target.limit}" if target.limit else ""
    return (
        f"no host: the inventory {target.inventory}{limit} names none in the group kos"
        " (for the lab: kai lab up starts a node)"
    )


def hosts(target: Target) -> dict[str, dict[str, Any]]:
    """The connection variables of every host of the group kos. Raises AnsibleFailed."""
    argv = [program("ansible-inventory"), *target.arguments()[:2], "--list"]
    done = subprocess.run(argv, capture_output=True, text=True, env=_environment(), check=False)
    if done.returncode != 0:
        raise AnsibleFailed(done.stderr.strip())
    listing = json.loads(done.stdout)
    names = listing.get("kos", {}).get("hosts", [])
    return {name: listing["_meta"]["hostvars"].get(name, {}) for name in names}


def chosen(target: Target) -> list[str]:
    """The names of the group kos that the limit leaves. Raises AnsibleFailed."""
    argv = [program("ansible"), "kos", *target.arguments(), "--list-hosts"]
    done = subprocess.run(argv, capture_output=True, text=True, env=_environment(), check=False)
    if done.returncode != 0:
        raise AnsibleFailed(done.stderr.strip())
    return [line.strip() for line in done.stdout.splitlines()[1:]]
