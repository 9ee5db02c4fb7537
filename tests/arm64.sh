#!/usr/bin/env bash
# The tests of the kernels, the ops and the training of models on ARM (Apple silicon, Graviton).
#
#   tests/arm64.sh [pytest arguments]           all of them, those of threads under each layer
#   tests/arm64.sh --part [pytest arguments]    what a change has to pass
#   tests/arm64.sh --run FILES...               pytest, as it is called here
#
# On another machine than ARM, QEMU emulates the processor: this unpacks it and an aarch64 Python from
# Debian's packages, and wheels for it from PyPI, all in .venv/arm64, as any user. Numba compiles for it
# on the machine itself (tests/arm64_compiler.py), which is 20 times faster than under emulation;
# ARM64_COMPILER= (empty) lets it compile there. Emulation keeps the order of memory accesses of the
# machine, so that it cannot show where weaker ordering needs a barrier.
# It ends with exit code 77 where there is no such Python to be had.
set -euo pipefail
cd "$(dirname "$0")/.."
home=$PWD/.venv/arm64
host=$(command -v "${PYTHON:-python3}") # of this machine, with Numba
packages=(numpy graphviz safetensors ml_dtypes pytest pytest-xdist hypothesis mpmath tqdm num2words matplotlib tokenizers sacrebleu scikit-learn)
kernels=(kernel_math numerics softmax activation norm linear matmul attention attention_masks chain dropout
    conv rnn embedding loss elementwise reduce bfloat16 precision kernels_decoding pool parallel threading_layers)
main=(ops machines autograd views inplace module optim random serialize files memory compile compile_memory compile_models
    replay_ops replay_chains transformer_fused transformer_model recurrent gpt bert vit translate decoding)

unpack() {
    local mirror key name
    mirror=$({ grep -rhoE '(URIs:|^deb( \[[^]]*\])?) +[^ ]+' /etc/apt/sources.list /etc/apt/sources.list.d/ 2>/dev/null || true; } |
        awk '{print $NF}' | grep -E '/debian/?$' | head -1)
    key=$(ls /usr/share/keyrings/debian-archive-keyring.* | head -1)
    mkdir -p "$home"/{apt/lists/partial,apt/cache/archives/partial,deb,root,site}
    printf "deb [arch=%s signed-by=$key] $mirror %s main\n" arm64 bookworm amd64 stable >"$home/apt/sources.list"
    local apt=(apt-get -q -o Dir::Etc::sourcelist="$home/apt/sources.list" -o Dir::Etc::sourceparts=-
        -o Dir::State::lists="$home/apt/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$home/apt/cache"
        -o APT::Sandbox::User="$(id -un)" -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Architectures::=amd64)
    "${apt[@]}" update >/dev/null
    (cd "$home/deb" && "${apt[@]}" download python3.11-minimal libpython3.11-minimal libpython3.11-stdlib \
        libc6 zlib1g libexpat1 libgcc-s1 libstdc++6 libffi8 libssl3 libbz2-1.0 liblzma5 libgomp1 \
        libuuid1 qemu-user:amd64 >/dev/null)
    for package in "$home"/deb/*.deb; do dpkg -x "$package" "$home/root"; done
    # What `sys.executable` names is this, so that Python starts another of its kind.
    name=$home/root/usr/bin/python3.11
    mv "$name" "$name.real"
    printf '#!/bin/sh\nexec %s -L %s -0 %s %s "$@"\n' \
        "$home/root/usr/bin/qemu-aarch64" "$home/root" "$name" "$name.real" >"$name"
    chmod +x "$name"
    ln -s "$name" "$home/python"
    packages+=("$("$host" -c 'import numba; print(f"numba=={numba.__version__}")')")
    "$host" -m pip install --quiet --disable-pip-version-check --upgrade --target "$home/site" \
        --only-binary :all: --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
        --platform manylinux2014_aarch64 --platform manylinux_2_17_aarch64 --platform any "${packages[@]}"
    PYTHONPATH=$home/site "$home/python" -c 'import numpy, llvmlite.binding'
    touch "$home/ready"
}

if [ "${1-}" = --unpack ]; then
    rm -rf "$home"
    unpack
    exit
fi
case $(uname -sm) in
*arm64 | *aarch64) python=$host ;;
"Linux x86_64")
    # A script of its own, because `set -e` does not hold in a command whose failure is looked at.
    [ -e "$home/ready" ] || "$BASH" "$0" --unpack || { echo "a Python for ARM cannot be had" >&2; exit 77; }
    python=$home/python
    export ARM64_COMPILER=${ARM64_COMPILER-$(realpath -s "$host")}
    export PYTHONPATH=$PWD:$PWD/tests:$home/site MINITENSOR_CACHE=$home/cache
    ;;
*) echo "a Python for ARM can only be had on Linux for x86-64" >&2; exit 77 ;;
esac
"$python" -c 'import sys, platform, importlib.metadata as metadata
print(platform.machine(), "Python", sys.version.split()[0], "numba", metadata.version("numba"))'
limit=()
run() {
    local test=("${limit[@]}" "$python" -m pytest -p no:cacheprovider -m "not torch and not faults and not wheel and not guide and not pages and not ranks")
    [ -z "${ARM64_COMPILER-}" ] || test+=(-p arm64_compiler)
    "${test[@]}" "$@"
}
sizes() {
    MINITENSOR_SIMD=$1 "${limit[@]}" "$python" tests/arm64_compiler.py tests/sizes.py "$2"
}
files() {
    local names=("${@/#/tests/test_}")
    echo "${names[@]/%/.py}"
}
# Emulated threads can stop for ever where those of a processor go on: what takes too long runs once more.
twice() {
    local status=0
    "$@" || status=$?
    [ $status = 124 ] || [ $status = 137 ] || return $status
    echo "the emulation stopped, or is very slow: once more" >&2
    "$@"
}
case ${1-} in
--run)
    shift
    run "$@"
    ;;
--part)
    shift
    few=(-k "not float64 and not lengths_around_vectors")
    limit=(timeout --kill-after=10 900) # it takes one minute
    { twice sizes neon 97 && twice run $(files machines) "${few[@]}" "$@"; } &
    failed=0
    twice run $(files softmax linear norm attention) "${few[@]}" "$@" || failed=$?
    wait $!
    exit $failed
    ;;
*)
    sizes neon 7
    sizes neon+bf16 7
    run -n auto --dist loadfile $(files "${kernels[@]}" "${main[@]}") "$@"
    # The kernels' threads are their own; a user's function may run on Numba's in the same process.
    for layer in omp workqueue tbb; do
        echo "NUMBA_THREADING_LAYER=$layer"
        NUMBA_THREADING_LAYER=$layer NUMBA_NUM_THREADS=4 run -rs $(files parallel threading_layers) "$@"
    done
    ;;
esac
