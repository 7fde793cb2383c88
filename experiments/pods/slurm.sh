#!/bin/bash
# sbatch --nodes=8 experiments/pods/slurm.sh RUN DATA [FLAGS]: Spikformer-8-768 on nodes of 8 GPUs.
#
# RUN is a folder on a file system that all nodes share; the same command continues it. A minute
# before the time is up, SLURM sends SIGTERM: all processes save the same step, and the job asks to
# be queued again. So it does if a process was lost (75).
#SBATCH --job-name=snnvit
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
run=${1:?where to write} data=${2:?where imagenet2012 was prepared}
shift 2

# One process for each GPU: JAX takes the GPU of a process's number on its node.
srun --kill-on-bad-exit=0 python -m snnvit_jax.main \
    --config=configs/imagenet.py:spikformer_8_768 --workdir="$run" \
    --config.model.dtype=bfloat16 --config.batch_size=$((16 * SLURM_NTASKS)) \
    --config.data.dir="$data" --config.data.workers=10 "$@"
status=$?
if [ $status -eq 143 ] || [ $status -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
