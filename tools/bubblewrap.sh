#!/usr/bin/env bash
# Make sure that there is bubblewrap for the tests of the sandbox: the one installed, else Debian's.
# Where this may not install it says so and goes on, and those tests fail with the same words.
set -euo pipefail
source "$(dirname "$0")/debian.sh"
command -v bwrap >/dev/null && exit 0
if ! may_install; then
    echo "No bubblewrap, and no right to install it: the tests of the sandbox will fail." >&2
    exit 0
fi
echo "Installing bubblewrap from Debian for the tests of the sandbox …"
install_from_debian bubblewrap
