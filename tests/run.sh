#!/usr/bin/env bash
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Run checks by name, in the order given, every one even after another failed, and close with a summary.
#   tests/run.sh lint|unit|sanity|quick|lab|vm|CHECK...
# The lab's checks are not started when a quick one failed: they take minutes and would show the same fault later.
# A check that this machine cannot run is skipped, and the summary says why.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
PATH=$PWD/.venv/bin:$PATH
export ANSIBLE_CONFIG=$PWD/ansible.cfg

lint=(ruff format mypy yamllint ansible-lint changelog)
quick=("${lint[@]}" collect unit sanity)
lab=(molecule e2e)

# What takes long is left to `make e2e`.
e2e="not(vm)and(not(long))"
[[ ${KOS_E2E:-} != full ]] || e2e="not(vm)"

# Lines of pytest, of the table of scenarios, and of linters that tell what failed.
FAULTS='^(FAILED|ERROR) |  FAILED$|AssertionError|^E   |: error: '

command_of() {
  case $1 in
    ruff) echo "ruff check ." ;;
    format) echo "ruff format --check ." ;;
    mypy) echo "mypy" ;;
    yamllint) echo "yamllint --strict ." ;;
    ansible-lint) echo "ansible-lint --offline --strict" ;;
    changelog) echo "antsibull-changelog lint" ;;
    collect) echo "pytest --collect-only --quiet --quiet tests/e2e" ;;  # a file that cannot be read fails here, not after an hour
    unit) echo "pytest -n 2 tests/unit" ;;
    sanity) echo "tests/run_sanity.sh" ;;
    molecule) echo "tests/run_scenarios.sh" ;;
    e2e) echo "pytest -p no:cacheprovider -m $e2e -n 2 --dist loadfile --no-loadscope-reorder --durations=30 tests/e2e" ;;
    e2e-*) echo "pytest -p no:cacheprovider --durations=5 tests/e2e/test_${1#e2e-}.py" ;;
    crashes) echo "pytest -p no:cacheprovider -s tests/e2e/test_crashes.py tests/e2e/test_full_disk.py" ;;
    vm) echo "pytest -p no:cacheprovider -m vm --durations=12 tests/e2e" ;;
    *) return 1 ;;
  esac
}

needs_lab() { [[ $1 == e2e-* || " ${lab[*]} crashes vm " == *" $1 "* ]]; }

# Why a check cannot run on this machine; nothing where it can.
hindrance_of() {
  [[ $1 != vm ]] || "${as_root[@]}" python tests/e2e/vmnodes.py
}

as_root=()
if ((EUID)); then
  # No bytecode and no caches as root: the checkout stays its owner's.
  as_root=(sudo env PATH="$PATH" LC_ALL="${LC_ALL:-C.UTF-8}" ANSIBLE_CONFIG="$ANSIBLE_CONFIG" CI="${CI:-}"
    KOS_E2E="${KOS_E2E:-}" KOS_CRASH_SEED="${KOS_CRASH_SEED:-}" KOS_REPORTS="${KOS_REPORTS:-}" PYTHONDONTWRITEBYTECODE=1)
fi

checks=()
for name in "$@"; do
  case $name in
    lint) checks+=("${lint[@]}") ;;
    quick) checks+=("${quick[@]}") ;;
    lab) checks+=("${lab[@]}") ;;
    *) command_of "$name" >/dev/null || { echo "unknown check: $name" >&2; exit 2; }
       checks+=("$name") ;;
  esac
done

said=$(mktemp)
# What the acceptance suite showed of each node, one report each (docs/acceptance.md).
reports=${KOS_REPORTS:-$(mktemp -d)}
trap 'rm -f "$said"; [[ $reports == "${KOS_REPORTS:-}" ]] || rm -rf "$reports"' EXIT
summary=()
passed=0 failed=0 skipped=0 quick_failed=0
for check in "${checks[@]}"; do
  read -ra command <<<"$(command_of "$check")"
  if needs_lab "$check"; then
    hindrance="a quick check failed"
    ((quick_failed)) || hindrance=$(hindrance_of "$check")
    if [[ $hindrance ]]; then
      summary+=("SKIPPED  $check  ($hindrance)")
      ((skipped += 1))
      continue
    fi
    command=("${as_root[@]}" env KOS_REPORTS="$reports" "${command[@]}")
  fi
  printf '\n== %s: %s\n' "$check" "${command[*]}"
  started=$SECONDS
  if "${command[@]}" </dev/null 2>&1 | tee "$said"; then
    summary+=("passed   $check  $((SECONDS - started)) s")
    ((passed += 1))
  else
    summary+=("FAILED   $check  $((SECONDS - started)) s  (again: tests/run.sh $check)")
    # Whoever sees the end of the output alone learns which.
    while read -r line; do summary+=("           $line"); done < <(sed 's/\x1b\[[0-9;]*m//g' "$said" | grep -aE "$FAULTS" | cut -c1-160 | tail -8)
    ((failed += 1))
    needs_lab "$check" || quick_failed=1
  fi
done

if compgen -G "$reports/*.json" >/dev/null; then
  printf '\n== What was shown of nodes, by the door that they came through\n'
  python tests/acceptance/doors.py --some "$reports"
fi

printf '\n== Summary, %d s\n' "$SECONDS"
printf '  %s\n' "${summary[@]}"
closing="checks: $passed passed, $failed failed"
((skipped)) && closing+=", $skipped skipped"
echo "$closing"
((failed == 0))
