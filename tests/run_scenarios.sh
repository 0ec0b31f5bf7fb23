#!/usr/bin/env bash
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Every molecule scenario (or those named), each even after another failed, and a table of what became of them. Two at a
# time, as each has a lab of its own and waits half of its time; what one says is printed in one piece when it ends.
#   tests/run_scenarios.sh [SCENARIO...]
set -uo pipefail
cd "$(dirname "$0")/.." || exit

if (($# == 0)); then
  for folder in molecule/*/; do set -- "$@" "$(basename "$folder")"; done
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# xargs calls it.
# shellcheck disable=SC2317
tried() {
  local scenario=$1 said=$2/$1.said result=ok profile services tests
  SECONDS=0
  molecule test --scenario-name "$scenario" --no-report >"$said" 2>&1 </dev/null || result=FAILED
  profile=$(sed -n 's/^kos_profile: //p' "molecule/$scenario/group_vars/kos.yml")
  services=$(kai plan --profile "$profile" --accept-shortfall cpu,memory,disk,gpu,network --json |
    python3 -c 'import json, sys; print(len(json.load(sys.stdin)["services"]))')
  # The last line that counts tests, without its colours.
  tests=$(sed 's/\x1b\[[0-9;]*m//g' "$said" | grep -oE '[0-9]+ (passed|failed)[^=]*' | tail -1)
  echo "$scenario|$profile|$services|${tests% in *}|$SECONDS|$result" >"$2/$scenario.row"
  flock "$2" cat "$said"
  [[ $result == ok ]]
}
export -f tried

failed=0
printf '%s\0' "$@" | xargs -0 -P 2 -I{} bash -c "tried {} $work" || failed=1
echo
{
  echo "scenario|plans|services|acceptance tests|seconds|result"
  for scenario; do cat "$work/$scenario.row"; done
} | column -t -s '|'
exit $failed
