#!/usr/bin/env bash
# The tests of the core on CPython 3.14, which counts references differently from the versions before.
#
#   tests/python314.sh [pytest arguments]
#
# It uses a python3.14 that is installed, in a virtual environment of its own. Without one, as root on
# Debian for x86-64, it unpacks the interpreter of Debian's unstable suite beside the system.
# It ends with exit code 77 where there is none to be had.
set -euo pipefail
cd "$(dirname "$0")/.."
home=$PWD/.venv/python314
python=$home/bin/python
packages=(numpy numba graphviz safetensors ml_dtypes pytest hypothesis)
# Ownership, changes in place, every op, layers, optimisers, files, threads, the kernel cache.
core=(registration ownership inplace memory autograd views ops module optim serialize files parallel processes kernel_cache)

unpack() {
    local mirror key library binary
    mirror=$({ grep -rhoE '(URIs:|^deb( \[[^]]*\])?) +[^ ]+' /etc/apt/sources.list /etc/apt/sources.list.d/ 2>/dev/null || true; } |
        awk '{print $NF}' | grep -E '/debian/?$' | head -1)
    key=$(ls /usr/share/keyrings/debian-archive-keyring.* | head -1)
    mkdir -p "$home"/{apt/lists/partial,apt/cache/archives/partial,deb,root,site,bin}
    echo "deb [signed-by=$key] $mirror sid main" >"$home/apt/sources.list"
    local apt=(apt-get -q -o Dir::Etc::sourcelist="$home/apt/sources.list" -o Dir::Etc::sourceparts=-
        -o Dir::State::lists="$home/apt/lists" -o Dir::Cache="$home/apt/cache" -o APT::Sandbox::User=root)
    "${apt[@]}" update >/dev/null
    (cd "$home/deb" && "${apt[@]}" download python3.14-minimal libpython3.14-minimal libpython3.14-stdlib \
        libc6 zlib1g libexpat1 libgcc-s1 libstdc++6 libffi8 libssl3t64 libbz2-1.0 liblzma5 libgomp1 \
        libzstd1 libuuid1 libmpdec4 >/dev/null)
    for package in "$home"/deb/*.deb; do dpkg -x "$package" "$home/root"; done
    # Its own C library, which is newer than the system's, and the loader that belongs to it.
    library=$home/root/usr/lib/x86_64-linux-gnu
    binary=$home/root/usr/bin/python3.14
    mv "$binary" "$binary.real"
    printf '#!/bin/sh\nexec %s --argv0 %s --library-path %s %s "$@"\n' \
        "$library/ld-linux-x86-64.so.2" "$binary" "$library" "$binary.real" >"$binary"
    chmod +x "$binary"
    ln -sf "$binary" "$python"
    "${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --upgrade --target "$home/site" \
        --only-binary :all: --implementation cp --python-version 3.14 --abi cp314 --abi abi3 --abi none \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
        --platform manylinux2014_x86_64 --platform any "${packages[@]}"
}

prepare() {
    if command -v python3.14 >/dev/null; then
        python3.14 -m venv "$home"
        "$python" -m pip install --quiet --disable-pip-version-check "${packages[@]}"
    elif [ "$(id -u)" = 0 ] && [ "$(uname -m)" = x86_64 ] && command -v apt-get >/dev/null; then
        unpack
    else
        echo "there is no python3.14 here, and only root on Debian for x86-64 can have it unpacked" >&2
        return 1
    fi
    touch "$home/ready"
}

if [ "${1-}" = --prepare ]; then
    prepare
    exit
fi
# A script of its own, because `set -e` does not hold in a command whose failure is looked at.
[ -e "$home/ready" ] || "$BASH" "$0" --prepare || { echo "CPython 3.14 cannot be had" >&2; exit 77; }
export PYTHONPATH=$PWD:$home/site
"$python" -c 'import sys, numba; print("Python", sys.version.split()[0], "numba", numba.__version__)'
files=("${core[@]/#/tests/test_}")
exec "$python" -m pytest -p no:cacheprovider "${files[@]/%/.py}" "$@"
