#!/bin/sh
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Called by mmdebstrap once every package lies in apt's cache: what they are, and which paths each one brings.
# $KOS_RECORD: the folder that the two lists are written to. $1: the tree.
set -eu
for deb in "$1"/var/cache/apt/archives/*.deb; do
  name=$(dpkg-deb --field "$deb" Package)
  sum=$(sha256sum <"$deb" | cut -d' ' -f1)
  dpkg-deb --show --showformat="\${Package} \${Version} \${Architecture} $sum\n" "$deb" >>"$KOS_RECORD/packages"
  dpkg-deb --fsys-tarfile "$deb" | tar --list --quoting-style=literal | sed "s|^|$name |" >>"$KOS_RECORD/paths"
done
