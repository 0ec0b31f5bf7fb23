#!/bin/sh
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Run a program of QEMU's tree, which sees a folder as /run/medium and each FILE (or folder) as /run/NAME and nothing
# else of this machine but its devices. Called in a mount namespace of its own, so that the mounts go with it.
#   boot-medium.sh TREE FOLDER NAME=FILE… -- PROGRAM ARGUMENT…
set -eu
tree=$1 folder=$2
shift 2

mount --rbind /dev "$tree/dev"
mount -t proc proc "$tree/proc"
mount -t tmpfs -o mode=0700 tmpfs "$tree/run"
mkdir "$tree/run/medium"
mount --bind "$folder" "$tree/run/medium"
while [ "$1" != -- ]; do
  if [ -d "${1#*=}" ]; then mkdir "$tree/run/${1%%=*}"; else : >"$tree/run/${1%%=*}"; fi
  mount --bind "${1#*=}" "$tree/run/${1%%=*}"
  shift
done
shift
exec chroot "$tree" "$@"
