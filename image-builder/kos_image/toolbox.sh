#!/bin/sh
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# toolbox.sh TREE SCRATCH [NAME FOLDER]... -- PROGRAM [ARGUMENT]...
# Run PROGRAM in TREE, where FOLDER is /build/NAME. It expects mounts and processes of its own (`unshare`): whatever it
# mounts ends with it. SCRATCH is what /tmp is: a folder, or nothing for memory.
set -eu
tree=$1 scratch=$2
shift 2
mount --rbind "$tree" "$tree"
mount --rbind /sys "$tree/sys"
mount --rbind /dev "$tree/dev"
mount -t proc proc "$tree/proc"
mount -t tmpfs -o mode=0755 tmpfs "$tree/run"
if [ -n "$scratch" ]; then mount --bind "$scratch" "$tree/tmp"; else mount -t tmpfs -o mode=1777,size=90% tmpfs "$tree/tmp"; fi
mount -t tmpfs -o mode=1777 tmpfs "$tree/var/tmp"
mount -t tmpfs -o mode=0755 tmpfs "$tree/build"
while [ "$1" != -- ]; do
  mkdir -p "$tree/build/$1"
  mount --rbind "$2" "$tree/build/$1"
  shift 2
done
shift
exec chroot "$tree" "$@"
