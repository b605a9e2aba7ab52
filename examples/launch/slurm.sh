#!/bin/bash
# A run on two nodes under SLURM, one rank on each: sbatch examples/launch/slurm.sh
# Options of `bench run` may follow. Each rank needs one CPU, or one GPU. The harness gets a second CPU.
#SBATCH --job-name=samework
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --time=00:40:00
# On a GPU, one for each rank:
##SBATCH --gpus-per-task=1
set -euo pipefail

# The ranks prove to each other that they know this. Without it, the number of the job is all they need to know.
SAMEWORK_KEY=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
export SAMEWORK_KEY

# If one rank ends with an error, srun ends the others.
srun --kill-on-bad-exit=1 bench run --budget 20m "$@"
