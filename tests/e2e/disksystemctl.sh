#!/bin/sh
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# In systemctl's place where no systemd runs, for the move of a node's data: the units that the node's generator hands
# out are mounted as they say, and one service runs, if what it waits for is there.
UNITS=/run/units
PID=/run/kos-notes.pid

active() {
  case $1 in
    *.mount) [ -f "$UNITS/$1" ] && mounted "$(value "$1" Where)" ;;
    kos-notes.service) [ -f $PID ] && kill -s 0 -- "-$(cat $PID)" 2>/dev/null ;;
    *) false ;;
  esac
}

# What the shell reads itself: each program takes an emulated machine a tenth of a second.
mounted() {
  while read -r _what place _rest; do [ "$place" != "$1" ] || return 0; done </proc/mounts
  return 1
}

value() {
  while IFS='=' read -r key text; do [ "$key" != "$2" ] || printf '%s\n' "$text"; done <"$UNITS/$1"
}

start() {
  ! active "$1" || return 0
  case $1 in
    *.mount)
      for needed in $(value "$1" Requires); do start "$needed" || return; done
      kind=$(value "$1" Type)
      mkdir -p "$(value "$1" Where)"
      mount -t "$kind" -o "$(value "$1" Options)" "$(value "$1" What)" "$(value "$1" Where)"
      ;;
    kos-notes.service)
      guard=$UNITS/$1.d/kos-encryption.conf
      [ ! -f "$guard" ] || mounted "$(value "$1.d/kos-encryption.conf" ConditionPathIsMountPoint)" || return 0
      setsid sh /run/kos-notes.sh </dev/null >/dev/null 2>&1 &
      echo $! >$PID
      ;;
  esac
}

stop() {
  active "$1" || return 0
  case $1 in
    *.mount) umount "$(value "$1" Where)" ;;
    *)
      # With what it runs just then, which may have a file open.
      kill -s KILL -- "-$(cat $PID)"
      while active "$1"; do sleep 0.01; done
      ;;
  esac
}

verb=
for word; do
  case $word in
    -*) ;;
    *) verb=${verb:-$word} ;;
  esac
done
while [ "$#" -gt 0 ] && [ "$1" != -- ]; do shift; done
[ "$#" -eq 0 ] || shift
case $verb in
  daemon-reload)
    rm -rf $UNITS
    mkdir $UNITS
    for generator in /etc/systemd/system-generators/*; do [ ! -x "$generator" ] || "$generator" $UNITS; done
    ;;
  show)
    for name; do
      printf 'Id=%s\nActiveState=%s\n\n' "$name" "$(active "$name" && echo active || echo inactive)"
    done
    ;;
  is-active) active "$1" ;;
  start) for name; do start "$name" || exit; done ;;
  stop) for name; do stop "$name" || exit; done ;;
esac
