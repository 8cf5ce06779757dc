#!/usr/bin/env bash
# Install Infernet's official Python client, exactly as requirements/infernet-client.txt names it, into an environment
# of its own below the dev one: it wants web3 below 7, which does not go together with the eth-account that Comptoir
# uses. An unchanged lock means nothing to do.
#
# Two packages that it asks for are left out (tools/lock.sh): infernet-ml, of which it takes a class for an annotation
# and nothing else (tests/infernet_client/driver.py stands in), and quart, which it never imports. It asks for
# infernet-ml 2.0.0.81 or newer and the registry ends at 2.0.0, so that plain pip can't install it as it is: pip goes
# back to 1.0.0, the same client without /resources. With infernet-ml 2.0.0 forced in it would be 90 packages and 111 MB
# instead of 44 and 55 MB.
set -euo pipefail
cd "$(dirname "$0")/.."
venv="$(cd "${VENV:-.venv}" && pwd)"
own="$venv/infernet-client"
stamp="$own/.comptoir"
want="$(cksum requirements/infernet-client.txt)"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
    exit 0
fi
echo "Installing requirements/infernet-client.txt into ${VENV:-.venv}/infernet-client …"
rm -rf "$own"
"$venv/bin/python" -m venv --without-pip "$own"
"$venv/bin/python" -m pip --python "$own/bin/python" --disable-pip-version-check install --quiet --no-deps --no-compile \
    --require-hashes --requirement requirements/infernet-client.txt
echo "$want" >"$stamp"
