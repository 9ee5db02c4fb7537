#!/usr/bin/env bash
# Collect the Pythons of the table in pyproject.toml as links in a folder, and print that folder.
#
#   tests/pythons.sh 3.11 3.12 ...
#
# A Python may be installed, also by pyenv. Where it is not, as root on Debian for x86-64, that of
# another suite of Debian is unpacked beside the system. One that cannot be had is said on stderr.
set -euo pipefail
cd "$(dirname "$0")/.."
pythons=$PWD/.venv/pythons/bin # not beside pyvenv.cfg, which would be theirs

installed() {
    local python
    for python in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python"$1" $(type -ap "python$1"); do
        if "$python" -c '' 2>/dev/null; then
            ln -sf "$python" "$pythons/python$1"
            return
        fi
    done
    return 1
}

unpack() {
    [ "$(id -u)" = 0 ] && [ "$(uname -m)" = x86_64 ] && command -v apt-get >/dev/null || return
    local home=$PWD/.venv/pythons/debian-$1 mirror key library binary
    mirror=$({ grep -rhoE '(URIs:|^deb( \[[^]]*\])?) +[^ ]+' /etc/apt/sources.list /etc/apt/sources.list.d/ 2>/dev/null || true; } |
        awk '{print $NF}' | grep -E '/debian/?$' | head -1)
    key=$(ls /usr/share/keyrings/debian-archive-keyring.* | head -1)
    mkdir -p "$home"/{apt/lists/partial,apt/cache/archives/partial,deb,root}
    printf "deb [signed-by=$key] $mirror %s main\n" stable sid >"$home/apt/sources.list"
    local apt=(apt-get -q -o Dir::Etc::sourcelist="$home/apt/sources.list" -o Dir::Etc::sourceparts=-
        -o Dir::State::lists="$home/apt/lists" -o Dir::Cache="$home/apt/cache" -o APT::Sandbox::User=root)
    "${apt[@]}" update
    (cd "$home/deb" && "${apt[@]}" download "python$1-minimal" "libpython$1-minimal" "libpython$1-stdlib" \
        libc6 zlib1g libexpat1 libgcc-s1 libstdc++6 libffi8 libssl3t64 libbz2-1.0 liblzma5 libgomp1 \
        libzstd1 libuuid1 libmpdec4)
    for package in "$home"/deb/*.deb; do dpkg -x "$package" "$home/root"; done
    # Its own C library, which is newer than the system's, and the loader that belongs to it.
    library=$home/root/usr/lib/x86_64-linux-gnu
    binary=$home/root/usr/bin/python$1
    mv "$binary" "$binary.real"
    printf '#!/bin/sh\nexec %s --argv0 "$0" --library-path %s %s "$@"\n' \
        "$library/ld-linux-x86-64.so.2" "$library" "$binary.real" >"$binary"
    chmod +x "$binary"
    "$binary" -c 'import ssl, ctypes'
    ln -sf "$binary" "$pythons/python$1"
}

if [ "$1" = --unpack ]; then
    unpack "$2"
    exit
fi
mkdir -p "$pythons"
for version; do
    # Unpacked by a script of its own, because `set -e` does not hold in a command that `||` follows.
    [ -e "$pythons/python$version" ] || installed "$version" || "$BASH" "$0" --unpack "$version" >&2 ||
        echo "CPython $version cannot be had here" >&2
done
echo "$pythons"
