#!/usr/bin/env bash
# Make the virtual environment from a lock file, with nothing but Python's own venv and pip.
#
#   tools/venv.sh run    what `make up` needs: the base install, the demo engine and the build backend
#   tools/venv.sh dev    that and everything tests and checks need
#
# A second call with an unchanged lock does nothing; a changed lock makes the environment anew, so that a
# package that left the lock leaves the environment too. PYTHON names the interpreter, VENV the folder.
set -euo pipefail
cd "$(dirname "$0")/.."
level="${1:?run or dev}"
venv="${VENV:-.venv}"

# The stamp is the lock's content, not its time: a git checkout touches files without changing them.
lock_of() { cksum "requirements/$1.txt"; }
current() { [ -f "$venv/.comptoir-$1" ] && [ "$(cat "$venv/.comptoir-$1")" = "$(lock_of "$1")" ]; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Comptoir needs Python 3.11 or newer, and found none. Name one: make PYTHON=python3.12 …" >&2
    exit 1
}

make_empty() {
    local python
    python="$(find_python)"
    if [ -e "$venv" ] && [ ! -f "$venv/.comptoir" ]; then
        echo "$venv exists and was not made by tools/venv.sh: remove it, or name another folder with VENV=…" >&2
        exit 1
    fi
    rm -rf "$venv"
    if ! "$python" -m venv "$venv"; then
        rm -rf "$venv"
        echo "$python has no venv module (Debian and Ubuntu: apt-get install python3-venv)." >&2
        exit 1
    fi
    touch "$venv/.comptoir"
}

# --no-deps: the lock is complete, so there is nothing to resolve. --no-compile: Python compiles what it imports.
pip_install() {
    "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps --no-compile "$@"
}

if current "$level"; then
    exit 0
fi
# A current run environment is a good base for the dev one: the locks agree on every shared package.
if [ -f "$venv/.comptoir-dev" ] || ! current run; then
    make_empty
fi
echo "Installing requirements/$level.txt into $venv …"
pip_install --require-hashes --requirement "requirements/$level.txt"
pip_install --no-build-isolation --editable .
lock_of run >"$venv/.comptoir-run"
if [ "$level" = dev ]; then
    lock_of dev >"$venv/.comptoir-dev"
fi
