#!/usr/bin/env bash
# Measure this checkout and add the run to a history that is carried along. Usage:
# docs/ci/nightly.sh HISTORY.jsonl [options of `bench run`]
# HISTORY_HOST names the machine, where a CI gives every job a new one of the same kind.
# A change point is advice and never ends this with a failure; a run in which nothing could be ranked does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
(($# > 0)) || { echo "$0: name the file of the history, such as history.jsonl" >&2; exit 2; }
history=$1
shift

status=0
nox -s bench -- "$@" || status=$?
bench=.nox/harness/bin/bench
newest=$(ls -td results/run-*/ | head -n 1)
"$bench" history add "$newest" --history "$history" ${HISTORY_HOST:+--host "$HISTORY_HOST"}
"$bench" history show "$history" --output results/history
if [[ -n ${GITHUB_STEP_SUMMARY:-} ]]; then
    cat results/history/HISTORY.md >>"$GITHUB_STEP_SUMMARY"
fi
exit "$status"
