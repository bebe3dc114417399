#!/bin/bash
# Runs the phases, with annotations and a summary, and says where the reports are.
# Its exit status is the engine's.
set -euo pipefail

engine=$RUNNER_TEMP/cleanroom-engine/bin
root=${ENGINE_ROOT:-.}
phases=()
IFS=$' \t\n' read -r -d '' -a phases <<<"${ENGINE_PHASES:-}" || true
for phase in "${phases[@]}"; do
  if [[ $phase == -* ]]; then
    echo "::error::phases: expected names of phases; options have inputs of their own"
    exit 2
  fi
done

options=(--output github --root "$root")
[[ -z ${ENGINE_POLICY:-} ]] || options+=("--policy=$ENGINE_POLICY")
[[ -z ${ENGINE_ENVIRONMENT:-} ]] || options+=("--env=$ENGINE_ENVIRONMENT")

# What an earlier run left is not this one's.
reports=$root/.ggen/cleanroom/reports
before=$(stat -c %i-%Y -- "$reports/test_results.json" 2>/dev/null || true)
status=0
"$engine/cleanroom-engine" pipeline "${options[@]}" "${phases[@]}" || status=$?
after=$(stat -c %i-%Y -- "$reports/test_results.json" 2>/dev/null || true)

printf 'exit-code=%s\n' "$status" >>"$GITHUB_OUTPUT"
if [[ -n $after && $after != "$before" && $root != *$'\n'* && $root != *$'\r'* ]]; then
  outcome=$("$engine/python" -I -c '
import json, sys
outcome = json.load(open(sys.argv[1])).get("outcome", "")
print(outcome if isinstance(outcome, str) and outcome.isalpha() else "")
' "$reports/test_results.json")
  {
    printf 'outcome=%s\n' "$outcome"
    printf 'reports=%s\n' "$reports"
    printf 'junit=%s\n' "$reports/test_results.junit.xml"
    printf 'sarif=%s\n' "$reports/test_results.sarif"
  } >>"$GITHUB_OUTPUT"
fi
exit "$status"
