# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kos-install`: the screens of an install, its engine, dry runs, and the verification of a medium."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ansible_collections.kind.kos.cli.exits import Exit

from . import medium

# What is slow to load is imported where it is needed: a console shows something at once.


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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="kos-install", description="The installer of kOS: without an option, its screens."
    )
    parser.add_argument(
        "--answers", type=Path, metavar="FILE", help="what the screens would ask, as YAML, JSON or TOML"
    )
    parser.add_argument(
        "--unattended",
        action="store_true",
        help="look for answers where somebody left them; with --dry-run: are these enough for nobody to watch?",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and change nothing")
    parser.add_argument("--hardware", type=Path, metavar="FILE", help="a described machine; --dry-run or --replay only")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="rehearse: the screens, and recorded progress")
    parser.add_argument("--json", action="store_true", help="all of it as one JSON object; of an install one a line")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of the answers")
    parser.add_argument("--verify", action="store_true", help="read the whole medium, and say whether it is as made")
    parser.add_argument("--plain", action="store_true", help="ask line by line: for any terminal, and screen readers")
    parser.add_argument(
        "--remote", metavar="USER@HOST[:PORT]", help="install a machine that was started from a medium there"
    )
    parser.add_argument(
        "--fingerprint", metavar="SHA256:...", help="with --remote: of its SSH key, as its screen has it"
    )
    parser.add_argument("--engine", action="store_true", help="run the engine that the screens talk to")
    parser.add_argument("--socket", type=Path, metavar="PATH", help="where the engine listens")
    parser.add_argument("--attach", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--visit", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    _check(parser, options)
    return options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    alone = next((name for name in ("schema", "verify") if getattr(options, name)), None)
    if alone and any(value for name, value in vars(options).items() if name != alone):
        parser.error(f"--{alone} goes with no other option: leave the others away")
    if options.hardware and not (options.dry_run or options.replay):
        parser.error("--hardware describes another machine, which cannot be installed: add --dry-run or --replay")
    if options.replay and not options.hardware:
        parser.error("--replay needs --hardware FILE: no real machine is rehearsed on")
    if options.replay and (options.answers or options.unattended):
        parser.error("--replay rehearses the screens, which ask for themselves: leave --answers and --unattended away")
    if options.json and not (options.answers or options.unattended):
        parser.error("--json goes with --answers")
    if options.dry_run and not options.answers:
        parser.error("--dry-run shows what answers would do: add --answers FILE")
    if options.answers and options.unattended and not options.dry_run:
        parser.error("--unattended looks for answers itself: leave --answers away, or add --dry-run")
    if options.remote and (options.unattended or options.dry_run):
        parser.error("--remote takes answers from here, and looks at no disk before it installs: --answers FILE alone")
    if options.fingerprint and not options.remote:
        parser.error("--fingerprint goes with --remote")


if __name__ == "__main__":
    sys.exit(main())
