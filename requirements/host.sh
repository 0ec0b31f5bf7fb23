#!/usr/bin/env bash
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Install the Debian packages that the checkout needs: Python's venv, git, and what the lab's nodes run on and media are
# made with.
# Looks first and asks for nothing when nothing is missing, so `make setup` may call it every time.
#   PYTHON=python3  the interpreter that .venv is made with
#   LAB=yes         `no` leaves the packages of lab and media out
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

say() { printf 'setup: %s\n' "$*" >&2; }

fail() { say "$@"; exit 1; }

is_debian() { [[ -r /etc/os-release ]] && grep -qx 'ID=debian' /etc/os-release && command -v apt-get >/dev/null; }

# install PACKAGE...: those that dpkg does not hold as installed.
install() {
  local package output missing=() as_root=()
  for package in "$@"; do
    [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  say "installing ${missing[*]}"
  if ((EUID)); then
    command -v sudo >/dev/null || fail "only root can install them: run this as root, or install sudo."
    as_root=(sudo)
  fi
  output=$({
    "${as_root[@]}" apt-get --quiet=2 update &&
      "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 --yes --no-install-recommends \
        -o Dpkg::Use-Pty=0 install "${missing[@]}"
  } 2>&1) || fail "$output"
}

if is_debian; then
  install ca-certificates cryptsetup-bin git gpg gpg-agent gpgv openssh-client python3 python3-venv restic shellcheck skopeo sudo tmux
fi

command -v "$python" >/dev/null || fail "$python was not found. kOS needs Python 3.11 or newer (make setup PYTHON=…)."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$python is $("$python" -V). kOS needs Python 3.11 or newer (make setup PYTHON=…)."

if [[ ${LAB:-yes} == no ]]; then
  exit 0
elif is_debian; then
  export PYTHONPATH=collections:image-builder PYTHONDONTWRITEBYTECODE=1
  packages=$("$python" -m ansible_collections.kind.kos.lab.host --packages && "$python" -m kos_image.host --packages)
  mapfile -t packages < <(tr -s '[:space:]' '\n' <<<"$packages" | sort --unique)
  install "${packages[@]}"
else
  say "this is not Debian: everything but lab and media works here (these need Debian 12 or 13)."
fi
