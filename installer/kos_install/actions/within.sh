#!/bin/sh
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# within.sh TARGET PROGRAM [ARGUMENT…]: run a program that installs into a root which is not booted. target.py starts this
# in mounts and process ids of its own, so that neither mounts nor daemons outlive it, however it ends.
set -eu
umask 022
target=$1
shift

mount -t proc -o nosuid,nodev,noexec proc "$target/proc"
mount --rbind /sys "$target/sys"
mount --rbind /dev "$target/dev"
# Empty: no systemd runs there, so maintainer scripts enable systemd units and start none.
mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs "$target/run"
mkdir -m 1777 "$target/run/lock"
# Nor are scripts of System V started, which a package may still bring; a file policy-rc.d could be left behind.
[ ! -e "$target/usr/sbin/invoke-rc.d" ] || mount --bind "$target/usr/bin/true" "$target/usr/sbin/invoke-rc.d"

exec "$@"
