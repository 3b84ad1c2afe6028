# Sourced by the scripts beside it: sets PYTHON to the interpreter, and RENDEZVOUS
# to torchrun's arguments. TOOLS is the folder of the scripts.
if [ -z "${PYTHON:-}" ]; then
    # Without an activated environment, that of `make setup`.
    if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$TOOLS/../.venv/bin/python" ]; then
        PYTHON=$TOOLS/../.venv/bin/python
    else
        PYTHON=$(command -v python || command -v python3) || {
            echo 'there is no python: activate the environment, or set PYTHON' >&2
            exit 2
        }
    fi
fi
if [ -z "${NNODES:-}${PORT:-}${MASTER_ADDR:-}" ]; then
    # One machine: a free port, so that two jobs do not meet.
    RENDEZVOUS=(--standalone --nnodes=1)
else
    RENDEZVOUS=(
        --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}"
        --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}"
    )
fi
