#!/bin/bash
# sbatch examples/slurm.sh: four hosts of eight GPUs. Two minutes before its time is up SLURM sends
# SIGUSR1; the run saves, and the job is queued again and goes on where it was.
#SBATCH --job-name=alexnet
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append

RUN=${RUN:-runs/large-batch}    # on a file system that all hosts share
DATA=${DATA:?set DATA to a packed ILSVRC-2012}

words=(large-batch --data "$DATA")
[ -L "$RUN/checkpoints/last" ] && words=(--resume --data "$DATA")

export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node 8 --max-restarts 3 \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$(hostname):29500" \
    --signals-to-handle SIGTERM,SIGINT,SIGUSR1 \
    -m -- alexnet train "${words[@]}" --run "$RUN" &
wait $!
status=$?
finished=$(grep -o '"finished": *"[^"]*"' "$RUN/checkpoints/last/state.json" 2>/dev/null)
if [ $status -ne 0 ] && [ "$finished" = '"finished": ""' ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
