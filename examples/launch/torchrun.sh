#!/bin/bash
# A run under torchrun. Start it on each node with its number: torchrun.sh NODES NODE FIRST_HOST RANKS_PER_NODE
# Options of `bench run` may follow. SAMEWORK_KEY must be the same on all nodes, or not set.
set -euo pipefail
nodes=$1 node=$2 first_host=$3 ranks=$4
shift 4

torchrun --nnodes="$nodes" --node-rank="$node" --nproc-per-node="$ranks" \
    --master-addr="$first_host" --master-port=29500 \
    -m bench run --budget 20m "$@"
