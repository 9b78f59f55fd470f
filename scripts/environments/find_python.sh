#!/bin/sh
# Prints the Python that the environments are made with: $PYTHON where that is given, else the newest of 3.13, 3.12 and 3.11 that is
# there, else one that uv fetches into .venvs/python. Otherwise one line says what is needed, and the exit status is 1.
# Usage: sh scripts/environments/find_python.sh
cd "$(dirname "$0")/../.." || exit 1

usable() { # a version manager leaves commands that only say that they are not installed, so each is started; Debian leaves out ensurepip
    "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

fetched=.venvs/python
# By any older Python: uv, of the version and hashes in the workflow's lock, and with it a Python of its own.
fetch() {
    python3 -m venv --clear "$fetched/uv" &&
        awk '/^[^ #]/ { inside = /^uv==/ } inside && !/^ *#/' envs/workflow.lock >"$fetched/uv.txt" &&
        "$fetched/uv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$fetched/uv.txt" &&
        "$fetched/uv/bin/uv" python install --no-bin --install-dir "$fetched" 3.13
}

needed="Python 3.11, 3.12 or 3.13 with its module venv (Red Hat, Rocky: dnf install python3.12; Debian, Ubuntu: apt-get install python3.11-venv; clusters: \
module avail python), or its path: make PYTHON=/path/to/python3.12"

if [ -n "$PYTHON" ]; then
    usable "$PYTHON" && echo "$PYTHON" && exit
    echo "error: PYTHON=$PYTHON: $("$PYTHON" -c 'import platform; print(platform.python_version())' 2>/dev/null ||
        echo 'does not run') found; expected $needed" >&2
    exit 1
fi
for candidate in python3.13 python3.12 python3.11 python3 python "$fetched"/cpython-3.1[123]*/bin/python3; do
    usable "$candidate" && echo "$candidate" && exit
done
mkdir -p "$fetched" && echo "no Python 3.11 to 3.13 here; fetching one with uv into $fetched" >&2
if fetch >"$fetched/log" 2>&1; then
    for candidate in "$fetched"/cpython-3.1[123]*/bin/python3; do
        usable "$candidate" && echo "$candidate" && exit
    done
fi
echo "error: $(python3 -c 'import platform; print("python3 is " + platform.python_version())' 2>/dev/null ||
    echo 'no python3'), and uv could not fetch another ($(grep . "$fetched/log" | tail -n 1 | sed 's/^ *//')); expected $needed" >&2
exit 1
