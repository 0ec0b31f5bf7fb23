# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kos-install`: dry runs, and the console of a live medium, which asks nothing of the network and never ends."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import subprocess
import sys
import termios
import threading
import traceback
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from ansible_collections.kind.kos.cli.exits import Exit

from . import machine, medium, screen
from .screen import View

_LOOK_EVERY = 1.0  # seconds between two looks at the keyboard and at how the verification goes
_KAI = "kai is here: kai --help. exit leads back to the menu."


def main() -> int:
    """Entry point. The exit codes are those of every command; 1 as well for a medium that `--verify` finds broken."""
    options = _options()
    if options.verify:
        return _verify()
    if options.schema or options.answers:
        return _asked(options)
    return _console()


def _asked(options: argparse.Namespace) -> int:
    # Slow to load, and of no use to the console.
    from . import answers
    from .dry_run import dry_run

    if options.schema:
        print(answers.schema(), end="")
        return Exit.OK
    return dry_run(options.answers, options.hardware, options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kos-install", description="The installer of kOS, and a medium's console.")
    parser.add_argument(
        "--answers", type=Path, metavar="FILE", help="what the screens would ask, as YAML, JSON or TOML"
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and change nothing")
    parser.add_argument(
        "--hardware", type=Path, metavar="FILE", help="with --dry-run: a described machine, not this one"
    )
    parser.add_argument("--json", action="store_true", help="with --dry-run: all of it as one JSON object")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of the answers")
    parser.add_argument("--verify", action="store_true", help="read the whole medium, and say whether it is as made")
    options = parser.parse_args()
    if options.hardware and not options.dry_run:
        parser.error("--hardware describes another machine, which cannot be installed from here: add --dry-run")
    if options.json and not options.dry_run:
        parser.error("--json goes with --dry-run")
    if bool(options.answers) != options.dry_run:
        parser.error("--answers FILE and --dry-run go together")
    return options


def _console() -> int:
    """The screen of a medium, for ever."""
    for key in (signal.SIGTSTP, signal.SIGQUIT):
        # A console that somebody stopped would be gone for good; a handler, unlike ignoring, ends with a shell's exec.
        signal.signal(key, lambda *_: None)
    while True:
        try:
            console_loop(Console(highlight=False))
        except (KeyboardInterrupt, EOFError):
            continue
        except Exception as error:  # whatever it is: a person reads a sentence, and the journal has the rest
            traceback.print_exc(file=sys.stderr)
            print(f"\r\nThe console failed ({type(error).__name__}); journalctl -b has the details. Press Enter.\r")
            with contextlib.suppress(EOFError, KeyboardInterrupt):
                input()


def _verify() -> int:
    result = medium.verify(medium.own_disk(), medium.known())
    print(screen.verification(result).plain)
    return 1 if result.state == medium.BROKEN else 0


def console_loop(console: Console) -> None:
    """Show the screen, wait for a key, do what it says, again."""
    disk = str(medium.own_disk() or "")
    record, looked = medium.record(), machine.look()
    short = _Short(lambda: machine.short_of(looked, record.get("minimum", {}), medium.own_disk()))
    while True:
        looked = machine.look()
        console.clear()
        console.print(f"[bold]kOS {record.get('version', '')}[/bold]\n")
        console.print(screen.head(View(record, looked, disk, short.found)))
        console.print()
        act(wait(console, short), console)


class _Short:
    """What the machine lacks, found out beside the screen: it takes seconds to load what knows."""

    def __init__(self, look: Callable[[], list[str]]) -> None:
        self.found: list[str] | None = None
        self._look = look
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self.found = self._look()
        except Exception:
            traceback.print_exc(file=sys.stderr)
            self.found = ["it cannot be found out"]


def wait(console: Console, short: _Short) -> str:
    """The key of the menu that was pressed, or nothing when all is to be shown anew: on Enter, or as more is known."""
    known, shown, told = short.found is not None, "", False
    with _keys():
        while True:
            now = medium.progress()
            line = screen.verification(now)
            if now.state == medium.RUNNING:
                # In place: a serial line is slow, and a screen that scrolls cannot be read.
                sys.stdout.write("\r" + line.plain.ljust(console.width - 1)[: console.width - 1])
                sys.stdout.flush()
            elif shown != line.plain:
                sys.stdout.write("\r" + " " * (console.width - 1) + "\r")
                console.print(line)
                console.print(screen.foot())
                shown = line.plain
            if select.select([sys.stdin], [], [], _LOOK_EVERY)[0]:
                key = os.read(sys.stdin.fileno(), 1).decode(errors="replace")
                if key in screen.MENU:
                    return key
                # The rest of an arrow key; that of Page Up has a 5, which would switch off.
                termios.tcflush(sys.stdin, termios.TCIFLUSH)
                if key in ("", "\r", "\n"):
                    return ""
                if not told:
                    sys.stdout.write("\r" + screen.OTHER_KEY.ljust(console.width - 1) + "\n")
                    sys.stdout.flush()
                    told = True
            if not known and short.found is not None:
                return ""


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Keys one by one, unseen."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def act(key: str, console: Console) -> None:
    """Do what a key of the menu stands for."""
    if key == screen.SHELL:
        console.clear()
        console.print(_KAI)
        _run("/bin/bash", "--login")
    elif key == screen.VERIFY:
        medium.STATE.unlink(missing_ok=True)
        _run("systemctl", "--no-block", "restart", medium.VERIFIER)
    elif key == screen.NETWORK:
        console.clear()
        console.print("Every wired network that offers an address (DHCP) is used.\n")
        _run("networkctl", "--no-pager", "list")
        _run("ip", "-brief", "address")
        console.input("\nPress Enter for the menu.")
    elif key in (screen.REBOOT, screen.POWER_OFF):
        _run("systemctl", "reboot" if key == screen.REBOOT else "poweroff")


def _run(*argv: str) -> None:
    """Run a program on the screen: our own errors go to the journal, its errors are for who sits here."""
    subprocess.run(argv, stderr=sys.stdout, check=False)
