#!/usr/bin/env bash
# Check whether this checkout is slower, less accurate or larger than BASE. Usage:
# docs/ci/gate.sh BASE [options of `bench ab`]
# Ends with 0 if it is not, 1 if it is, 3 if that could not be decided, and 2 if nothing was compared.
# The verdict is appended as Markdown to $GITHUB_STEP_SUMMARY if that is set. All raw values are in
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
# Nox ends with 1 for every status of the session's command except 0; the comparison gives the exact status.
status=0
.nox/harness/bin/bench ab --again "$made" >/dev/null || status=$?
if [[ -n ${GITHUB_STEP_SUMMARY:-} ]]; then
    cat "$made/AB.md" >>"$GITHUB_STEP_SUMMARY"
fi
exit "$status"
