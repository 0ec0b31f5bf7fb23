#!/bin/sh
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Run a program of QEMU's tree in the foreground. Called in a mount namespace of its own, so that the mounts go with it.
#   boot-vm.sh TREE IMAGE DISK RUN PROGRAM ARGUMENT…
set -eu
tree=$1 image=$2 disk=$3 run=$4
shift 4

mount --rbind /dev "$tree/dev"
mount -t proc proc "$tree/proc"
mount -t tmpfs -o mode=0700 tmpfs "$tree/run"
mkdir "$tree/run/node"
mount --bind "$run" "$tree/run/node"
mount --bind "$disk" "$tree/disk"
mount --bind -o ro "$image" "$tree/image"
exec chroot "$tree" "$@"
