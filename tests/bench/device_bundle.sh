#!/bin/sh
# Gathers programs that stand in for those of the device check.
#   device_bundle.sh path/to/bench/device_bundle.sh
set -u
script=$1
. "$(dirname "$0")/expect.sh"
mkdir "$work/bin"
executable "$work/bin/cmake" <<'EOF'
#!/bin/sh
echo "cmake $*"
[ "$1" = --build ] || exit "${CONFIGURE_STATUS:-0}"
[ "${BUILD_STATUS:-0}" = 0 ] || exit 1
for program in host/tweedie tests/cuda/engine_device_test bench/engine_bench bench/kernel_bench \
    tests/kernels/noise_device_test; do
    mkdir -p "$(dirname "$2/$program")"
    cp "$(command -v tar)" "$2/$program"
done
EOF
executable "$work/bin/ldd" <<'EOF'
#!/bin/sh
echo "	linux-vdso.so.1 (0x00007f0000000000)"
echo "	libc.so.6 => $LIBRARIES/libc.so.6 (0x00007f0000000000)"
echo "	libneeded.so.1 => ${NEEDED:-$LIBRARIES/libneeded.so.1 (0x00007f0000000000)}"
EOF
mkdir "$work/libraries"
touch "$work/libraries/libc.so.6" "$work/libraries/libneeded.so.1"

run() { # run CASE [VARIABLE=value ...]
    case=$1
    shift
    bundle=$work/$case
    log=$bundle.log
    env PATH="$work/bin:$PATH" LIBRARIES="$work/libraries" BUNDLE_BUILD="$bundle.build" "$@" \
        sh "$script" "$bundle" >"$log" 2>&1
    status=$?
}

run gathers
expect "status 0" test "$status" = 0
expect "the command" test -x "$bundle/host/tweedie"
expect "the kernels' tests" test -x "$bundle/tests/kernels/noise_device_test"
expect "the library" test -e "$bundle/lib/libneeded.so.1"
expect "not the C library" test ! -e "$bundle/lib/libc.so.6"
expect "the commit" test -s "$bundle/COMMIT"
expect "the archive" sh -c "tar -tf '$bundle.tar.xz' | grep -q '^./tests/cuda/engine_device_test'"
expect "every architecture" grep -q "CMAKE_CUDA_ARCHITECTURES=80-real;80-virtual;90a-real" "$bundle.build.log"

run again ARCH=90a-real
run again ARCH=90a-real
expect "status 0 over an earlier one" test "$status" = 0
expect "one architecture" grep -q "CMAKE_CUDA_ARCHITECTURES=90a-real " "$bundle.build.log"

mkdir "$work/precious"
run precious
expect "status 1" test "$status" = 1
expect "that it is left alone" grep -q "precious is something else" "$log"

run lacks NEEDED="not found"
expect "status 1" test "$status" = 1
expect "what is not found" grep -q "libneeded.so.1 => not found" "$log"
run lacks
expect "status 0 when it is there" test "$status" = 0

for variable in CONFIGURE_STATUS BUILD_STATUS; do
    run "fails-$variable" "$variable=1"
    expect "status 1" test "$status" = 1
    expect "no archive" test ! -e "$bundle.tar.xz"
done

case=usage log=$work/usage.log
sh "$script" >"$log" 2>&1
expect "status 2 without a folder" test $? = 2
exit $bad
