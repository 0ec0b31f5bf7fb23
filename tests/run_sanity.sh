#!/usr/bin/env bash
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Run `ansible-test sanity` on the working tree, uncommitted files included. Arguments go to ansible-test.
# ansible-test works only below a real …/ansible_collections/NAMESPACE/NAME and resolves links, so it gets a copy.
set -euo pipefail
cd "$(dirname "$0")/.."
source_root=$PWD
export PATH=$source_root/.venv/bin:$PATH

# ansible-test keeps its virtual environments below the home directory; here they stay with the checkout.
export HOME=$source_root/.cache/sanity
mkdir -p "$HOME/.ansible/test/cache"

# It would fetch a pip installer from a server of its own. Python carries one, so PyPI is all that is needed.
bootstrap="import ensurepip; ensurepip.bootstrap()"
for version in $(python -c '
from types import SimpleNamespace
from ansible_test._internal import python_requirements as r
print(r.get_venv_packages(SimpleNamespace(version=""))["pip"].replace(".", "_"))'); do
  echo "$bootstrap" >"$HOME/.ansible/test/cache/get_pip_$version.py"
done

work=$(mktemp --directory)
trap 'rm -rf "$work"' EXIT
copy=$work/ansible_collections/kind/kos
mkdir -p "$copy"
git ls-files --cached --others --exclude-standard -z |
  while IFS= read -r -d '' path; do
    if [[ -e $path || -L $path ]]; then printf '%s\0' "$path"; fi
  done |
  tar --create --null --files-from=- | tar --extract --directory="$copy"
cd "$copy"
# The list of files comes from git, as in a clone.
git init --quiet
git add --all

ansible-test sanity --python "$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')" --color no "$@"
