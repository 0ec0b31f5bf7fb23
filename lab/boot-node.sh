#!/bin/sh
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Run one lab node in the foreground until it powers off; node.py starts this in the node's network, in a mount
# namespace of its own (so that its mounts go with its last process, however that one ends) and in its control group.
#   NAME     its name          BRIDGE   its network
#   ROOT     the cached root   DISK     the folder of its own disk
#   SEED     files it begins with
#   SIZE     empty, or the size of a disk in memory
#   CGROUP   the group for nspawn: not this script's own, where processes of its own would forbid it sub-groups
set -eu
umask 022

# nspawn keeps locks here that a killed one leaves, and two labs may both have a node of this name.
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=0700 tmpfs /run/systemd/nspawn

[ -z "$SIZE" ] || mount -t tmpfs -o "mode=0700,size=$SIZE" tmpfs "$DISK"
cd "$DISK"
fresh=$([ -d upper ] || echo yes)
mkdir -p upper work root home containers
mount -t overlay overlay -o "lowerdir=$ROOT,upperdir=upper,workdir=work" root
[ -z "$fresh" ] || tar -C "$SEED" -c . | tar -C root -x --no-overwrite-dir

# /proc/sys/net is the node's own, so it may write there; rootless containers need no seccomp filter and a file system
# that is not overlay (/home and their storage). Clock, modules and the kernel's log are this machine's: never the node's.
export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_SECCOMP=0

# 133: the node asked for a reboot.
status=133
while [ "$status" -eq 133 ]; do
  status=0
  sh -c 'echo $$ > "$0/cgroup.procs" && exec "$@"' "$CGROUP" \
    systemd-nspawn --quiet --register=no --keep-unit --boot --directory=root --machine="$NAME" \
    --capability=all --drop-capability=CAP_SYS_TIME,CAP_SYS_MODULE,CAP_SYSLOG \
    --network-bridge="$BRIDGE" --bind="$DISK/home:/home" --bind="$DISK/containers:/var/lib/containers" \
    --bind=/dev/net/tun \
    --resolv-conf=off --timezone=off --link-journal=no --console=read-only || status=$?
done

# A killed nspawn leaves its node running. (Not between reboots: Linux 6.18 then kills what a killed group forks later.)
echo 1 > "$CGROUP/cgroup.kill"
exit "$status"
