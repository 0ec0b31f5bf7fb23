#!/bin/sh
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# clean-root.sh TREE: what two machines must not share, and what tells of the machine that made the tree, goes.
set -eu
cd "$1"
rm -f etc/apt/sources.list etc/apt/apt.conf.d/99mmdebstrap etc/dpkg/dpkg.cfg.d/99mmdebstrap
rm -f etc/hostname etc/resolv.conf etc/ssh/ssh_host_* var/lib/dbus/machine-id
rm -f etc/passwd- etc/group- etc/shadow- etc/gshadow- etc/subuid- etc/subgid- var/lib/systemd/random-seed
rm -f var/lib/dpkg/*-old var/cache/debconf/*-old
rm -rf var/cache/ldconfig/aux-cache var/log/apt var/log/*.log
: >etc/machine-id
case $(grep ^root: etc/shadow) in root:[*!]*) ;; *)
  echo 'root has a password' >&2
  exit 1
  ;;
esac
