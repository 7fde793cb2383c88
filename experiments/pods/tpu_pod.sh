#!/bin/bash
# experiments/pods/tpu_pod.sh NAME ZONE CHIPS REPOSITORY RUN DATA: Spikformer-8-768 on a v5e pod.
#
# CHIPS is 8, 64 or 256. REPOSITORY is a git URL that the hosts can clone; RUN and DATA are folders
# that all hosts have mounted (Filestore, or a bucket by gcsfuse). The same command continues a run.
set -eu
name=$1 zone=$2 chips=$3 repository=$4 run=$5 data=$6

if ! gcloud compute tpus tpu-vm describe "$name" --zone="$zone" >/dev/null 2>&1; then
    gcloud compute tpus tpu-vm create "$name" --zone="$zone" \
        --accelerator-type="v5litepod-$chips" --version=v2-alpha-tpuv5-lite
fi
on_all_hosts() {
    gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}
on_all_hosts "sudo apt-get -qq install python3.11-venv
    test -d snnvit_jax || git clone '$repository' snnvit_jax
    cd snnvit_jax && python3.11 -m venv .venv && .venv/bin/pip install --quiet '.[tpu]'"
# 8 images on a chip at a time; on 8 chips a batch of 192 in three parts.
batch=$((8 * chips)) parts=1
if [ "$chips" -eq 8 ]; then batch=192 parts=3; fi
on_all_hosts "cd snnvit_jax && .venv/bin/python -m snnvit_jax.main --distributed \
    --config=configs/imagenet.py:spikformer_8_768 --workdir='$run' --config.data.dir='$data' \
    --config.model.dtype=bfloat16 --config.batch_size=$batch --config.accumulate=$parts \
    --config.data.workers=64"
