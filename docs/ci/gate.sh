#!/usr/bin/env bash
# Is this checkout slower, less accurate or bigger than BASE? Usage: docs/ci/gate.sh BASE [options of `bench ab`]
# Ends with 0 where it is not, 1 where it is, 3 where that could not be decided, and 2 where nothing was compared.
# The verdict, as Markdown, is appended to $GITHUB_STEP_SUMMARY where that is set, and all raw values are in
# results/ab-*.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
(($# > 0)) || { echo "$0: name the revision to compare with, such as origin/main" >&2; exit 2; }
base=$1
shift

newest() { { find results -maxdepth 1 -type d -name 'ab-*' 2>/dev/null || true; } | sort | tail -n 1; }

before=$(newest)
nox -s regression -- --base "$base" "$@" || true
made=$(newest)
if [[ -z $made || $made == "$before" ]]; then
    echo "$0: nothing was compared; see above" >&2
    exit 2
fi
# Nox ends with 1 whatever a session's command ended with; the comparison itself tells which it was.
status=0
.nox/harness/bin/bench ab --again "$made" >/dev/null || status=$?
if [[ -n ${GITHUB_STEP_SUMMARY:-} ]]; then
    cat "$made/AB.md" >>"$GITHUB_STEP_SUMMARY"
fi
exit "$status"
