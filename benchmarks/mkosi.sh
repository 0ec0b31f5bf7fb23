#!/bin/sh
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Run mkosi of a Debian 13 tree on a project. Called in a mount namespace of its own, so that the mounts go with it.
#   mkosi.sh TREE PROJECT ARGUMENT…
set -eu
tree=$1 project=$2
shift 2

# mkosi wants its root to be a mount point.
mount --bind "$tree" "$tree"
mount --rbind /dev "$tree/dev"
mount -t proc proc "$tree/proc"
mount --rbind /sys "$tree/sys"
mount -t tmpfs tmpfs "$tree/run"
mount --bind "$project" "$tree/mnt"
exec chroot "$tree" sh -c 'cd /mnt && exec mkosi "$@"' mkosi "$@"
