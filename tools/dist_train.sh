#!/usr/bin/env bash
# Train with several processes: dist_train.sh CONFIG GPUS [ARGUMENTS...]
# ARGUMENTS are those of train.py. Without a GPU it starts GPUS processes on
# the CPU, which talk by gloo.
# Variables: PYTHON (that of the active environment, else of .venv), and NNODES,
# NODE_RANK, MASTER_ADDR, PORT for more than one machine.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,6s/^# //p' "$0" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
shift 2
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/python.sh
source "$TOOLS/python.sh"

exec "$PYTHON" -m torch.distributed.run "${RENDEZVOUS[@]}" \
    --nproc_per_node="$GPUS" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "$@"
