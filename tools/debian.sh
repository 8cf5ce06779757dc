# Sourced by the scripts that see to programs for tests: whether Debian's packages may be installed here, and how.
sudo=()
if [ "$(id -u)" != 0 ]; then
    sudo=(sudo -n)
fi

may_install() {
    command -v apt-get >/dev/null && "${sudo[@]}" true 2>/dev/null
}

# install_from_debian PACKAGE …: for their programs alone, no service of theirs is started.
install_from_debian() {
    local policy=/usr/sbin/policy-rc.d status=0
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    if [ -e "$policy" ]; then
        policy=""  # As in containers: services don't start here anyway.
    else
        printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
        "${sudo[@]}" chmod +x "$policy"
    fi
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
        status=$?
    if [ -n "$policy" ]; then
        "${sudo[@]}" rm "$policy"
    fi
    return "$status"
}
