#!/usr/bin/env bash
# Make sure that there is bubblewrap for the tests of the sandbox: the one installed, else Debian's.
# Where this may not install it says so and goes on, and those tests fail with the same words.
set -euo pipefail
command -v bwrap >/dev/null && exit 0
sudo=()
if [ "$(id -u)" != 0 ]; then
    sudo=(sudo -n)
fi
if ! command -v apt-get >/dev/null || ! "${sudo[@]}" true 2>/dev/null; then
    echo "No bubblewrap, and no right to install it: the tests of the sandbox will fail." >&2
    exit 0
fi
echo "Installing bubblewrap from Debian for the tests of the sandbox …"
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" apt-get install -y -qq --no-install-recommends bubblewrap >/dev/null
