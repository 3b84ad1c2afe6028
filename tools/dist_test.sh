#!/usr/bin/env bash
# Test with several processes: dist_test.sh CONFIG CHECKPOINT GPUS [ARGUMENTS...]
# ARGUMENTS are those of test.py. Without a GPU it starts GPUS processes on
# the CPU, which talk by gloo.
# Variables: PYTHON (that of the active environment, else of .venv), and NNODES,
# NODE_RANK, MASTER_ADDR, PORT for more than one machine.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2,6s/^# //p' "$0" >&2
    exit 2
fi
CONFIG=$1
CHECKPOINT=$2
GPUS=$3
shift 3
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/python.sh
source "$TOOLS/python.sh"

exec "$PYTHON" -m torch.distributed.run "${RENDEZVOUS[@]}" \
    --nproc_per_node="$GPUS" \
    "$TOOLS/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "$@"
