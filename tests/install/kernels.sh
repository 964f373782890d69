#!/bin/sh
# kernels.sh BUILD SOURCE CMAKE: installs the kernels alone into a temporary prefix and builds a
# program against them, in C and without nvcc.
set -eu
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
run() {
    "$@" >"$prefix/log" 2>&1 || { cat "$prefix/log"; exit 1; }
}
run "$3" --install "$1" --component kernels --prefix "$prefix/root"
# Moved: nothing of it may know where it was.
mv "$prefix/root" "$prefix/moved"
run "$3" -S "$2" -B "$prefix/build" -DCMAKE_PREFIX_PATH="$prefix/moved"
run "$3" --build "$prefix/build"
"$prefix/build/consumer"
# Every header that one of them includes came along, and the engine did not.
for header in "$prefix"/moved/include/tweedie_kernels/*.h; do
    cc -fsyntax-only -x c -I "$prefix/moved/include/tweedie_kernels" "$header"
done
[ ! -e "$prefix/moved/include/tweedie" ] && [ ! -e "$prefix/moved/bin" ]
