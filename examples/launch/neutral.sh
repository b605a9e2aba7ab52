#!/bin/bash
# Starts a command once for each rank on this machine, with the variables that any launcher can set:
# neutral.sh RANKS COMMAND...
set -uo pipefail
export SAMEWORK_RANKS=$1 SAMEWORK_HOST=localhost SAMEWORK_JOB=$$
shift

processes=()
for ((rank = 0; rank < SAMEWORK_RANKS; rank++)); do
    SAMEWORK_RANK=$rank SAMEWORK_LOCAL_RANK=$rank "$@" &
    processes+=($!)
done
status=0
for process in "${processes[@]}"; do
    wait "$process" || status=$?
done
exit "$status"
