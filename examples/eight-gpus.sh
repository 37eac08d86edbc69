#!/bin/sh
# One host of eight GPUs, one line; started again with --resume it goes on.
TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 exec torchrun --standalone --nproc-per-node 8 --max-restarts 3 --signals-to-handle SIGTERM,SIGINT,SIGUSR1 -m -- alexnet train large-batch --data "${1:?a packed ILSVRC-2012}" --run runs/large-batch
