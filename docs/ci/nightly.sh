#!/usr/bin/env bash
# Measure this checkout and add the run to a history file. Usage:
# docs/ci/nightly.sh HISTORY.jsonl [options of `bench run`]
# HISTORY_HOST gives the machine a fixed name, for a CI whose jobs run on machines with new names.
# Ends with 0 if a run with metrics was added, ranked or not. A change point is advice and not a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
(($# > 0)) || { echo "$0: name the file of the history, such as history.jsonl" >&2; exit 2; }
history=$1
shift

newest() { { find results -maxdepth 1 -type d -name 'run-*' 2>/dev/null || true; } | sort | tail -n 1; }

before=$(newest)
nox -s bench -- "$@" || true  # it fails if a row could not be ranked; the history takes the others
made=$(newest)
if [[ -z $made || $made == "$before" ]]; then
    echo "$0: nothing was measured; see above" >&2
    exit 2
fi
bench=.nox/harness/bin/bench
status=0
"$bench" history add "$made" --history "$history" ${HISTORY_HOST:+--host "$HISTORY_HOST"} || status=$?
"$bench" history show "$history" --output results/history
if [[ -n ${GITHUB_STEP_SUMMARY:-} ]]; then
    cat results/history/HISTORY.md >>"$GITHUB_STEP_SUMMARY"
fi
exit "$status"
