#!/usr/bin/env bash
# Train with several processes: dist_train.sh CONFIG GPUS [ARGUMENTS...]
# ARGUMENTS are those of train.py. Without a GPU it starts GPUS processes on
# the CPU, which talk by gloo.
# Variables: PYTHON (python), and NNODES, NODE_RANK, MASTER_ADDR, PORT for more
# than one machine.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,6s/^# //p' "$0" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
shift 2
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "$@"
