# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kos-install`: the screens of an install, its engine, dry runs, and the verification of a medium."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from ansible_collections.kind.kos.cli.exits import Exit

from . import medium

# What is slow to load is imported where it is needed: a console shows something at once.

# What does not go together -> the sentence that says what to do.
RULES: tuple[tuple[Callable[[argparse.Namespace], object], str], ...] = (
    (
        lambda given: given.hardware and not (given.dry_run or given.replay),
        "--hardware describes another machine, which cannot be installed: add --dry-run or --replay",
    ),
    (
        lambda given: given.replay and not given.hardware,
        "--replay needs --hardware FILE: no real machine is rehearsed on",
    ),
    (
        lambda given: given.replay and (given.answers or given.unattended),
        "--replay rehearses the screens, which ask for themselves: leave --answers and --unattended away",
    ),
    (lambda given: given.json and not (given.answers or given.unattended), "--json goes with --answers"),
    (
        lambda given: given.dry_run and not given.answers,
        "--dry-run shows what answers would do: add --answers FILE",
    ),
    (
        lambda given: given.answers and given.unattended and not given.dry_run,
        "--unattended looks for answers itself: leave --answers away, or add --dry-run",
    ),
    (
        lambda given: given.remote and (given.unattended or given.dry_run),
        "--remote takes answers from here, and looks at no disk before it installs: --answers FILE alone",
    ),
    (lambda given: given.fingerprint and not given.remote, "--fingerprint goes with --remote"),
)
# These go with no other option.
ALONE = ("schema", "verify")


def main() -> int:
    """Entry point. The exit codes are those of every command; 1 as well for a medium not proved to be as made."""
    options = _options()
    if options.verify:
        result = medium.verify(medium.own_disk(), medium.known())
        print(medium.sentence(result))
        return Exit.OK if result.state == medium.GOOD else Exit.UNEXPECTED
    from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError

    from .errors import InstallError

    try:
        return _run(options)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return Exit.INVALID_CONFIGURATION
    except InstallError as error:
        print(f"kos-install: {error}", file=sys.stderr)
        return error.exit
    except OSError as error:
        print(f"kos-install: {error}", file=sys.stderr)
        return Exit.UNEXPECTED


def _run(options: argparse.Namespace) -> int:
    if options.schema or options.dry_run:
        return _asked(options)
    if options.answers or options.unattended:
        from . import alone

        there = (options.remote, options.fingerprint) if options.remote else None
        return alone.main(options.answers, options.json, there)
    if options.engine:
        return _engine(options)
    from . import console

    if options.attach:
        from .engine import client, server

        client.attach(options.socket or server.SOCKET)
        return Exit.OK
    if options.visit:
        return console.visit(options.socket)
    if options.remote:
        return console.remote(options.remote, options.fingerprint, options.plain)
    if options.replay:
        return console.rehearse(options.hardware, options.replay, options.plain)
    return console.here(options.socket, options.plain)


def _asked(options: argparse.Namespace) -> int:
    from . import answers
    from .dry_run import dry_run

    if options.schema:
        print(answers.schema(), end="")
        return Exit.OK
    return dry_run(options.answers, options.hardware, options.json, options.unattended)


def _engine(options: argparse.Namespace) -> int:
    from .engine import server

    if options.replay:
        from .engine import replay
        from .hardware import describe

        world = replay.world(describe.load(options.hardware), replay.recording(options.replay))
    else:
        from .engine import this_machine

        world = this_machine.world()
    server.serve(world, options.socket or server.SOCKET)
    return Exit.OK


def parser() -> argparse.ArgumentParser:
    """Every option of the command; the reference of the documentation is made of it."""
    made = argparse.ArgumentParser(
        prog="kos-install", description="The installer of kOS: without an option, its screens."
    )
    made.add_argument("--answers", type=Path, metavar="FILE", help="what the screens would ask, as YAML, JSON or TOML")
    made.add_argument(
        "--unattended",
        action="store_true",
        help="look for answers where somebody left them; with --dry-run: are these enough for nobody to watch?",
    )
    made.add_argument("--dry-run", action="store_true", help="show what would be done, and change nothing")
    made.add_argument("--hardware", type=Path, metavar="FILE", help="a described machine; --dry-run or --replay only")
    made.add_argument("--replay", type=Path, metavar="FILE", help="rehearse: the screens, and recorded progress")
    made.add_argument("--json", action="store_true", help="all of it as one JSON object; of an install one a line")
    made.add_argument("--schema", action="store_true", help="print the JSON Schema of the answers")
    made.add_argument("--verify", action="store_true", help="read the whole medium, and say whether it is as made")
    made.add_argument("--plain", action="store_true", help="ask line by line: for any terminal, and screen readers")
    made.add_argument(
        "--remote", metavar="USER@HOST[:PORT]", help="install a machine that was started from a medium there"
    )
    made.add_argument("--fingerprint", metavar="SHA256:...", help="with --remote: of its SSH key, as its screen has it")
    made.add_argument("--engine", action="store_true", help="run the engine that the screens talk to")
    made.add_argument("--socket", type=Path, metavar="PATH", help="where the engine listens")
    made.add_argument("--attach", action="store_true", help=argparse.SUPPRESS)
    made.add_argument("--visit", action="store_true", help=argparse.SUPPRESS)
    return made


def _options() -> argparse.Namespace:
    reads = parser()
    options = reads.parse_args()
    alone = next((name for name in ALONE if getattr(options, name)), None)
    if alone and any(value for name, value in vars(options).items() if name != alone):
        reads.error(f"--{alone} goes with no other option: leave the others away")
    for breaks, sentence in RULES:
        if breaks(options):
            reads.error(sentence)
    return options


if __name__ == "__main__":
    sys.exit(main())
