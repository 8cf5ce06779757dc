#!/usr/bin/env bash
# Make sure that there are HAProxy and nginx for the tests of deploy/: those installed, else Debian's.
# Where this may not install them it says so and goes on, and those tests are skipped with the same words.
set -euo pipefail
PATH="$PATH:/usr/sbin"
missing=()
for program in haproxy nginx; do
    command -v "$program" >/dev/null || missing+=("$program")
done
[ ${#missing[@]} = 0 ] && exit 0
sudo=()
if [ "$(id -u)" != 0 ]; then
    sudo=(sudo -n)
fi
if ! command -v apt-get >/dev/null || ! "${sudo[@]}" true 2>/dev/null; then
    echo "Not here, and no right to install: ${missing[*]}. What deploy/ has for them will not be tried." >&2
    exit 0
fi
echo "Installing ${missing[*]} from Debian for the tests of deploy/ …"
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
# Installed for their programs alone: no service of theirs is started.
printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee /usr/sbin/policy-rc.d >/dev/null
"${sudo[@]}" chmod +x /usr/sbin/policy-rc.d
"${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
"${sudo[@]}" rm /usr/sbin/policy-rc.d
