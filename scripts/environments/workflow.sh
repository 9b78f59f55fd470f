#!/bin/sh
# Makes the workflow's environment (.venv), unless it is of this lock already: scripts/environments/build_workflow.py.
# Usage: sh scripts/environments/workflow.sh
cd "$(dirname "$0")/../.." || exit 1

if [ -x .venv/bin/python ] && [ -f .venv/ok ]; then
    [ "$(cat .venv/ok)" = "$(sha256sum envs/workflow.lock)" ] && exit
    # Of an earlier version, which wrote no sum.
    [ ! -s .venv/ok ] && [ ! envs/workflow.lock -nt .venv/ok ] && exit
fi
python=$(sh scripts/environments/find_python.sh) || exit 1
exec "$python" scripts environments.build_workflow
