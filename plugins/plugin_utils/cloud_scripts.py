# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cloud-init runs on a machine that becomes a node: constants, so that no value of anybody's can become a command.

A script in `scripts/per-boot` is run at every start, after all else; one that fails makes `cloud-init status` say
*error*. It is not in `runcmd`, whose lines are one script that tells only how its last one ended, and which is not run
again where the power was cut in the middle.
"""

from __future__ import annotations

from . import own_node

# What differs from machine to machine, a file each.
DOOR = "/etc/kos/door"
PATH = "/var/lib/cloud/scripts/per-boot/50-kos"
KAI = "/usr/local/bin/kai"
# systemd's credentials of the machine (SMBIOS, fw_cfg): the operator's vault, and its password.
VAULT, PASSWORD = "kos.vault", "kos.vault-password"
_COLLECTIONS = "/usr/share/ansible/collections"
_CONFIGS = "ansible_collections/kind/kos/configs"
# Debian 13's: signed by Debian, and kept up to date by it. curl is none of them: apt's helper fetches.
PACKAGES = (
    "ansible-core",
    "openssh-client",
    "python3-pydantic",
    "python3-ruamel.yaml",
    "python3-tomlkit",
    "python3-typer",
)

_BEGIN = f"""\
#!/bin/sh
# kOS: makes this machine its own node, once; at the next start again, as long as it is none. How it went:
#   cloud-init status --wait --long
set -eu
umask 022
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
door={DOOR}
# Other user-data make another instance of it, which begins anew.
done=/var/lib/cloud/instance/kos-node
[ ! -e "$done" ] || exit 0

fail() {{
  echo "kOS: this machine is not a node: $1" >&2
  exit 1
}}

work=/run/kos-door
install -d -m 0700 "$work"
"""

_FETCH = f"""
url=$(cat "$door/collection")
got=$work/kind-kos.tar.gz
packages="{" ".join(PACKAGES)}"

apt() {{
  apt-get -q -y -o DPkg::Lock::Timeout=300 -o APT::Update::Error-Mode=any "$@"
}}

# $packages is a list of words.
# shellcheck disable=SC2086
there=$(dpkg-query --show --showformat '${{db:Status-Status}}\n' $packages 2>/dev/null | grep -cx installed) || true
# shellcheck disable=SC2086
if [ "$there" -lt {len(PACKAGES)} ]; then
  apt update || fail "the lists of packages cannot be fetched: look at the mirror in /etc/apt, then: sudo $0"
  apt --no-install-recommends install $packages || fail "its packages cannot be installed: $packages"
fi

for ending in '' .sig; do
  rm -f "$got$ending"
  /usr/lib/apt/apt-helper -q -o APT::Sandbox::User=root download-file "$url$ending" "$got$ending" ||
    fail "$url$ending cannot be fetched: put there what kai cloud-init publish made, then: sudo $0"
done
# Nothing of it is unpacked, or run, before this.
ssh-keygen -Y verify -f "$door/publishers" -I publisher -n kos-collection -s "$got.sig" <"$got" ||
  fail "the collection at $url is not signed by the key in $door/publishers; nothing of it was used"
if [ -s "$door/sha256" ]; then
  printf '%s  %s\\n' "$(cat "$door/sha256")" "$got" | sha256sum --check --status ||
    fail "the collection at $url is another version than the one that was asked for; nothing of it was used"
fi
ansible-galaxy collection install --offline --no-deps --force --collections-path {_COLLECTIONS} "$got" ||
  fail "the collection cannot be installed"
configs={_COLLECTIONS}/{_CONFIGS}
"""

_ON_IMAGE = f"""
for configs in /usr/lib/kos/lib/python3*/site-packages/{_CONFIGS}; do :; done
"""

_SECRETS = f"""
given=/run/credentials/@system
vault() {{
  [ -e "$given/{VAULT}" ] || return 0
  environment=$(cat "$door/environment")
  [ -n "$environment" ] || fail "it was given a vault ({VAULT}) and no environment to use it in: render with --env"
  [ -e "$given/{PASSWORD}" ] || fail "it was given a vault ({VAULT}) without its password ({PASSWORD})"
  install -d -m 0700 "$configs/secrets"
  install -m 0600 "$given/{VAULT}" "$configs/secrets/$environment.vault"
}}
vault
[ ! -e "$given/{PASSWORD}" ] || set -- "$@" --vault-password-file "$given/{PASSWORD}"
"""

_DEPLOY = f"""
# It signs for itself: root of this machine alone has the key.
kai trust key >"$work/own.pub"
kai trust add {own_node.ITSELF} "$work/own.pub" || fail "it cannot be made its own operator"
kai deploy "$@" || fail "kai deploy ended with $?; mend what it says above, then: sudo $0"
rm -r "$work"
touch "$done"
echo "kOS: this machine is a node"
"""

_FROM_BUNDLE = f"""
kai trust add {own_node.MAKER} {own_node.MAKER_KEY} || fail "the maker of its image cannot be trusted"
set -- --bundle {own_node.BUNDLE}
"""

PULL = f"{_BEGIN}{_FETCH}{_SECRETS}{_DEPLOY}"
SEEDED = f"{_BEGIN}{_ON_IMAGE}{_FROM_BUNDLE}{_SECRETS}{_DEPLOY}"

# Debian's images have both, and then nothing is fetched.
PUSH = """\
command -v python3 >/dev/null && command -v sudo >/dev/null && exit 0
apt-get -q -y update && apt-get -q -y --no-install-recommends install python3 sudo && exit 0
echo "kOS: no controller can use this machine: python3 and sudo cannot be installed" >&2
exit 1
"""

LAUNCHER = f"""\
#!/usr/bin/python3 -I
import sys

sys.path.insert(0, "{_COLLECTIONS}")
from ansible_collections.kind.kos.cli.main import main

sys.exit(main())
"""
