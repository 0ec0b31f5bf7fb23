# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a controller does with images and units, and the programs it calls for it: build, push, sign, lock.

It stands below `kai` because nothing else builds: a deploy only reads what was built, through plugin_utils
(`oci`, `unit_store`, `images`), which call no program at all.
"""
