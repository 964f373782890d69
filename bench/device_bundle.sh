#!/bin/sh
# Gathers what device_check.sh runs, for a machine with a GPU that cannot build it: the programs,
# stripped, and the shared libraries that they need, but for the C library's and the driver's.
#   device_bundle.sh BUNDLE   [BUNDLE_BUILD=dir] [ARCH=90a-real] [JOBS=n]
# BUNDLE becomes a folder, laid out as the build is, and BUNDLE.tar.xz. ARCH names the GPUs' code;
# by default all that the kernels are built for. Without oneDNN, which is large and which only the
# CPU would use.
set -eu
[ $# = 1 ] || { echo "device_bundle.sh: which folder should become the bundle?" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
build=${BUNDLE_BUILD:-$root/build-device}
bundle=$1
[ ! -e "$bundle" ] || [ -e "$bundle/COMMIT" ] || { echo "device_bundle.sh: $bundle is something else" >&2; exit 1; }

# The libraries lie in BUNDLE/lib: found there by what needs them, and by what those need.
# shellcheck disable=SC2016
cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DTW_CUDA=ON -DTW_ONEDNN=OFF \
    "-DCMAKE_CUDA_ARCHITECTURES=${ARCH:-80-real;80-virtual;90a-real}" \
    '-DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags,-rpath,$ORIGIN/../lib:$ORIGIN/../../lib' >"$build.log" 2>&1 ||
    { cat "$build.log" && exit 1; }
cmake --build "$build" -j "${JOBS:-$(nproc)}" --target device_programs

rm -rf "$bundle" "$bundle.tar.xz"
mkdir -p "$bundle/lib"
commit=$(git -C "$root" rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
[ "$commit" = unknown ] || git -C "$root" diff --quiet HEAD -- || commit=$commit-modified
echo "$commit" >"$bundle/COMMIT"
programs="host/tweedie tests/cuda/engine_device_test bench/engine_bench bench/kernel_bench"
for program in $programs $(cd "$build" && ls tests/kernels/*_device_test); do
    mkdir -p "$bundle/$(dirname "$program")"
    strip -o "$bundle/$program" "$build/$program"
    ldd "$build/$program" >>"$bundle/needed"
done
if grep "not found" "$bundle/needed"; then exit 1; fi
sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' "$bundle/needed" | sort -u | while read -r library; do
    case $(basename "$library") in
    libc.so* | libm.so* | libdl.so* | librt.so* | libpthread.so* | libcuda.so*) ;;
    *) cp -L "$library" "$bundle/lib/" ;;
    esac
done
rm "$bundle/needed"
# The kernels are in every program: with a window that spans them they are packed once.
tar -C "$bundle" -cf - . | xz -T1 --lzma2=preset=6,dict=256MiB >"$bundle.tar.xz"
du -sh "$bundle" "$bundle.tar.xz"
