#!/usr/bin/env bash
# Make sure that there is a Chromium for the browser test: the one installed, else Debian's.
# Where this may not install one it says so and goes on, and the browser test then fails with the same words.
set -euo pipefail
source "$(dirname "$0")/debian.sh"
for candidate in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null; then
        exit 0
    fi
done
if ! may_install; then
    echo "No Chromium here, and no right to install one: the browser test will fail." >&2
    echo "Install chromium (Debian: apt-get install chromium), or name one with CHROMIUM=/path/to/chromium." >&2
    exit 0
fi
echo "Installing Chromium from Debian for the browser test …"
install_from_debian chromium
