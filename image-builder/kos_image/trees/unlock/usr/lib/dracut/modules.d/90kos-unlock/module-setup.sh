# shellcheck shell=bash disable=SC2154
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# dracut: a machine whose disk is locked has a network, where that was asked for: to be given its passphrase over SSH, to
# ask a Tang server. What is in /etc/kos/unlock goes into the initrd, which lies on a partition that anybody at the machine
# can read; the host key is therefore one of its own.

_asked() {
  [[ -s "$dracutsysrootdir/etc/kos/unlock/$1" ]]
}

check() {
  if _asked authorized_keys; then
    require_binaries sshd /usr/lib/openssh/sshd-session /usr/lib/openssh/sshd-auth systemd-tty-ask-password-agent || return 1
  elif _asked tang; then
    require_binaries clevis-decrypt-tang curl || return 1
  else
    return 1
  fi
  require_binaries /usr/lib/systemd/systemd-networkd
}

depends() {
  echo kernel-network-modules systemd systemd-ask-password systemd-sysusers systemd-udevd
  ! _asked tang || echo clevis
}

install() {
  _install_network
  ! _asked authorized_keys || _install_ssh
  # Its scripts are bash's; dracut's module of that name is left out for its size elsewhere.
  ! _asked tang || inst_multiple bash clevis-decrypt-tang curl
}

_install_network() {
  local name
  inst_multiple ip /usr/lib/systemd/systemd-networkd "$systemdsystemunitdir/systemd-networkd.service" \
    "$systemdsystemunitdir/systemd-networkd.socket" /etc/services
  inst_multiple -o "$tmpfilesdir/systemd-network.conf" "$systemdnetwork/99-default.link"
  # The addresses that the machine will have, by cable; Wi-Fi needs a supplicant that is not here.
  for name in "$dracutsysrootdir"/etc/systemd/network/*.{network,netdev,link}; do
    [[ ! -e $name ]] || grep -qi '^\(Type=wlan\|Name=wl\)' "$name" || inst_simple "${name#"$dracutsysrootdir"}"
  done
  _add_line '^systemd-network:' passwd
  _add_line '^systemd-network:' group
  $SYSTEMCTL -q --root "$initdir" add-wants sysinit.target systemd-networkd.service
}

_install_ssh() {
  local name
  inst_multiple grep sh sshd /usr/lib/openssh/sshd-session /usr/lib/openssh/sshd-auth systemd-tty-ask-password-agent
  _add_line '^sshd:' passwd
  # Nobody has a password here. One that begins with "!" would be refused a key too.
  printf 'root:*:::::::\nsshd:!:::::::\n' >"$initdir/etc/shadow"
  chmod 0600 "$initdir/etc/shadow"
  sed -i 's|^\(root:[^:]*:0:0:[^:]*:[^:]*\):.*|\1:/bin/sh|' "$initdir/etc/passwd"
  mkdir -p "$initdir/etc/kos-unlock"
  chmod 0700 "$initdir/etc/kos-unlock"
  for name in authorized_keys ssh_host_ed25519_key; do
    cp "$dracutsysrootdir/etc/kos/unlock/$name" "$initdir/etc/kos-unlock/$name"
    chmod 0600 "$initdir/etc/kos-unlock/$name"
  done
  cp "$moddir/sshd_config" "$initdir/etc/kos-unlock/sshd_config"
  printf 'Port %s\n' "$(cat "$dracutsysrootdir/etc/kos/unlock/port")" >>"$initdir/etc/kos-unlock/sshd_config"
  inst_script "$moddir/kos-unlock.sh" /usr/libexec/kos-unlock
  inst_simple "$moddir/kos-unlock.service" "$systemdsystemunitdir/kos-unlock.service"
  $SYSTEMCTL -q --root "$initdir" add-wants sysinit.target kos-unlock.service
}

# A user or group of the system, unless it is here already.
_add_line() {
  grep -q "$1" "$initdir/etc/$2" || grep -h "$1" "$dracutsysrootdir/etc/$2" >>"$initdir/etc/$2"
}
