# shellcheck shell=bash disable=SC2154
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# dracut: a machine whose disk is locked can be asked for its passphrase over SSH. Only where that was asked for: what is
# in /etc/kos/unlock goes into the initrd, which lies on a partition that anybody at the machine can read. Its host key is
# therefore one of its own.

check() {
  [[ -s "$dracutsysrootdir/etc/kos/unlock/authorized_keys" ]] || return 1
  require_binaries sshd /usr/lib/openssh/sshd-session /usr/lib/systemd/systemd-networkd systemd-tty-ask-password-agent
}

depends() {
  echo kernel-network-modules systemd systemd-ask-password systemd-sysusers systemd-udevd
}

install() {
  local name
  inst_multiple grep ip sh sshd /usr/lib/openssh/sshd-session /usr/lib/openssh/sshd-auth systemd-tty-ask-password-agent \
    /usr/lib/systemd/systemd-networkd "$systemdsystemunitdir/systemd-networkd.service" \
    "$systemdsystemunitdir/systemd-networkd.socket" /etc/services
  inst_multiple -o "$tmpfilesdir/systemd-network.conf" "$systemdnetwork/99-default.link"
  # The addresses that the machine will have, by cable; Wi-Fi needs a supplicant that is not here.
  for name in "$dracutsysrootdir"/etc/systemd/network/*.{network,netdev,link}; do
    [[ ! -e $name ]] || grep -qi '^\(Type=wlan\|Name=wl\)' "$name" || inst_simple "${name#"$dracutsysrootdir"}"
  done
  grep -h '^\(sshd\|systemd-network\):' "$dracutsysrootdir/etc/passwd" >>"$initdir/etc/passwd"
  grep -h '^systemd-network:' "$dracutsysrootdir/etc/group" >>"$initdir/etc/group"
  # Nobody has a password here. One that begins with "!" would be refused a key too.
  printf 'root:*:::::::\nsshd:!:::::::\n' >"$initdir/etc/shadow"
  chmod 0600 "$initdir/etc/shadow"
  sed -i 's|^\(root:[^:]*:0:0:[^:]*:[^:]*\):.*|\1:/bin/sh|' "$initdir/etc/passwd"
  mkdir -m 0700 -p "$initdir/etc/kos-unlock"
  for name in authorized_keys ssh_host_ed25519_key; do
    cp "$dracutsysrootdir/etc/kos/unlock/$name" "$initdir/etc/kos-unlock/$name"
    chmod 0600 "$initdir/etc/kos-unlock/$name"
  done
  cp "$moddir/sshd_config" "$initdir/etc/kos-unlock/sshd_config"
  printf 'Port %s\n' "$(cat "$dracutsysrootdir/etc/kos/unlock/port")" >>"$initdir/etc/kos-unlock/sshd_config"
  inst_script "$moddir/kos-unlock.sh" /usr/libexec/kos-unlock
  inst_simple "$moddir/kos-unlock.service" "$systemdsystemunitdir/kos-unlock.service"
  $SYSTEMCTL -q --root "$initdir" add-wants sysinit.target kos-unlock.service systemd-networkd.service
}
