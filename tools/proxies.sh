#!/usr/bin/env bash
# Make sure that there are HAProxy and nginx for the tests of deploy/: those installed, else Debian's.
# Where this may not install them it says so and goes on, and those tests are skipped with the same words.
set -euo pipefail
source "$(dirname "$0")/debian.sh"
PATH="$PATH:/usr/sbin"
missing=()
for program in haproxy nginx; do
    command -v "$program" >/dev/null || missing+=("$program")
done
[ ${#missing[@]} = 0 ] && exit 0
if ! may_install; then
    echo "Not here, and no right to install: ${missing[*]}. What deploy/ has for them will not be tried." >&2
    exit 0
fi
echo "Installing ${missing[*]} from Debian for the tests of deploy/ …"
install_from_debian "${missing[@]}"
