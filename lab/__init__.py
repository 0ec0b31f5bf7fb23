# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Throw-away Debian 13 nodes on this machine, to try and test on. README.md says what and how.

Standard library only: the inventory script and the setup of a bare machine run it with the system's Python.
"""
