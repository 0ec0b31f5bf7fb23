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
# The owner's settings of pip come along: the file's in the older of the two places pip looks in, and those of the
# environment, which ansible-test does not pass on, in the newer one.
private=$source_root/.cache/sanity
rm -rf "$private/.config" "$private/.pip"
mkdir -p "$private/.ansible/test/cache" "$private/.config/pip" "$private/.pip"
for settings in "$HOME/.pip/pip.conf" "$HOME/.config/pip/pip.conf"; do
  [[ -e $settings ]] && ln --symbolic --force "$settings" "$private/.pip/pip.conf"
done
env | sed -n '1i [global]
s/^PIP_\([A-Z_]*=.*\)/\1/p' >"$private/.config/pip/pip.conf"
export HOME=$private

# It would fetch a pip installer from a server of its own. Python carries one, so PyPI is all that is needed.
pip_version=$(python -c '
from types import SimpleNamespace
from ansible_test._internal import python_requirements
print(python_requirements.get_venv_packages(SimpleNamespace(version=""))["pip"].replace(".", "_"))')
echo 'import ensurepip; ensurepip.bootstrap()' >"$HOME/.ansible/test/cache/get_pip_$pip_version.py"

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

sanity=(ansible-test sanity --color no --python "$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')")

# The test `import` loads plugins beside ansible-core's own requirements alone. Ours need pydantic as well: without it
# each of them would need a line in the ignore file, and other faults in them would go unseen.
make_environments() {
  local lock=$source_root/requirements/lock-sanity.txt log=$private/environments.log environment marker
  marker=.kos-$(sha256sum <"$lock" | cut --characters=1-16)
  "${sanity[@]}" --prime-venvs &>"$log" || { cat "$log" >&2; return 1; }
  for environment in "$private"/.ansible/test/venv/sanity.import.plugin/*/*; do
    [[ -e $environment/$marker ]] && continue
    pip --python "$environment/bin/python" install -qq --require-hashes --requirement "$lock"
    touch "$environment/$marker"
  done
}

if (($#)); then
  [[ " $* " == *" --list-tests "* ]] || make_environments
  "${sanity[@]}" "$@"
  exit
fi

make_environments
status=0
"${sanity[@]}" --skip-test pylint || status=1
# Its rules are for what Ansible loads; ruff and mypy judge the rest.
"${sanity[@]}" --test pylint plugins/ || status=1
exit "$status"
