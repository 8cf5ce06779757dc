#!/usr/bin/env bash
# Make sure that there is a Chromium for the browser test: the one installed, else Debian's.
# Where this may not install one it says so and goes on, and the browser test then fails with the same words.
set -euo pipefail
for candidate in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null; then
        exit 0
    fi
done
sudo=()
if [ "$(id -u)" != 0 ]; then
    sudo=(sudo -n)
fi
if ! command -v apt-get >/dev/null || ! "${sudo[@]}" true 2>/dev/null; then
    echo "No Chromium here, and no right to install one: the browser test will fail." >&2
    echo "Install chromium (Debian: apt-get install chromium), or name one with CHROMIUM=/path/to/chromium." >&2
    exit 0
fi
echo "Installing Chromium from Debian for the browser test …"
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" apt-get install -y -qq --no-install-recommends chromium >/dev/null
