# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong while media are made, as sentences for a person."""

from __future__ import annotations

from ansible_collections.kind.kos.cli.exits import Exit


class ImageError(Exception):
    """Something could not be made; the text is a sentence with the way out. `exit` is what a command ends with."""

    exit = Exit.UNEXPECTED


class Stopped(ImageError):
    """By Ctrl-C or SIGTERM; stages may still be running, and end with this process."""


class UsageError(ImageError):
    """What was asked for does not exist or does not fit together."""

    exit = Exit.USAGE


class HostError(ImageError):
    """This machine lacks something that the build needs: a package, room, another Debian."""

    exit = Exit.PREFLIGHT_FAILED


class Refused(ImageError):
    """A package, unit or medium is not what was signed or locked."""

    exit = Exit.INVALID_CONFIGURATION
