#!/usr/bin/env bash
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Every molecule scenario (or those named), each even after another failed, and a table of what became of them.
#   tests/run_scenarios.sh [SCENARIO...]
set -uo pipefail
cd "$(dirname "$0")/.." || exit

if (($# == 0)); then
  for folder in molecule/*/; do set -- "$@" "$(basename "$folder")"; done
fi
said=$(mktemp)
trap 'rm -f "$said"' EXIT
failed=0
rows=("scenario|plans|services|acceptance tests|seconds|result")
for scenario; do
  SECONDS=0 result=ok
  molecule test --scenario-name "$scenario" --no-report 2>&1 | tee "$said" || { result=FAILED failed=1; }
  profile=$(sed -n 's/^kos_profile: //p' "molecule/$scenario/group_vars/kos.yml")
  services=$(kai plan --profile "$profile" --accept-shortfall cpu,memory,disk,gpu,network --json |
    python3 -c 'import json, sys; print(len(json.load(sys.stdin)["services"]))')
  # The last line that counts tests, without its colours.
  tests=$(sed 's/\x1b\[[0-9;]*m//g' "$said" | grep -oE '[0-9]+ (passed|failed)[^=]*' | tail -1)
  rows+=("$scenario|$profile|$services|${tests% in *}|$SECONDS|$result")
done
echo
printf '%s\n' "${rows[@]}" | column -t -s '|'
exit $failed
