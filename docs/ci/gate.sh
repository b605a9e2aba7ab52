#!/usr/bin/env bash
# Is this checkout slower, less accurate or bigger than BASE? Usage: docs/ci/gate.sh BASE [options of `bench ab`]
# Ends with 0 where it is not, 1 where it is, 3 where that could not be decided. The verdict, as Markdown, is
# appended to $GITHUB_STEP_SUMMARY where that is set, and all raw values are in results/ab-*.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
(($# > 0)) || { echo "$0: name the revision to compare with, such as origin/main" >&2; exit 2; }
base=$1
shift

status=0
nox -s regression -- --base "$base" "$@" || status=$?
newest=$(ls -td results/ab-*/ 2>/dev/null | head -n 1)
if [[ -n ${GITHUB_STEP_SUMMARY:-} && -f ${newest}AB.md ]]; then
    cat "${newest}AB.md" >>"$GITHUB_STEP_SUMMARY"
fi
exit "$status"
