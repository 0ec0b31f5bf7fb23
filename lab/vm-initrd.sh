#!/bin/sh
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# In the initrd of a virtual node, once its disk is there: give a disk that is nobody's yet the node's identity, and lay
# out what lives in memory only.
# shellcheck disable=SC2154  # the initrd sets rootmnt
[ "$1" != prereqs ] || exit 0
if [ -d /seed ] && ! cmp -s /seed/etc/machine-id "$rootmnt/etc/machine-id"; then
    mount -o remount,rw "$rootmnt"
    cp -a /seed/. "$rootmnt/"
    sync
    mount -o remount,ro "$rootmnt"
fi
[ ! -d /volatile ] || cp -a /volatile/. /run/
