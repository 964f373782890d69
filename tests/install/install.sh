#!/bin/sh
# install.sh BUILD SOURCE CMAKE: installs into a temporary prefix, builds a program against it, once
# with find_package and once with pkg-config, and looks for what came along.
set -eu
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
"$3" --install "$1" --prefix "$prefix/root" >"$prefix/log" 2>&1 || { cat "$prefix/log"; exit 1; }
"$3" -S "$2" -B "$prefix/build" -DCMAKE_PREFIX_PATH="$prefix/root" >"$prefix/log" 2>&1 || { cat "$prefix/log"; exit 1; }
"$3" --build "$prefix/build" >"$prefix/log" 2>&1 || { cat "$prefix/log"; exit 1; }
"$prefix/build/consumer"
pc=$(find "$prefix/root" -name tweedie.pc)
PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH
# shellcheck disable=SC2046
cc "$2/consumer.c" -o "$prefix/consumer" $(pkg-config --cflags --libs tweedie)
LD_LIBRARY_PATH=$(pkg-config --variable=libdir tweedie) "$prefix/consumer"
"$prefix/root/bin/tweedie" info
# Its help came along.
for file in man/man1/tweedie.1 bash-completion/completions/tweedie zsh/site-functions/_tweedie \
    fish/vendor_completions.d/tweedie.fish; do
    grep -q tweedie "$prefix/root/share/$file" || { echo "share/$file is missing or empty"; exit 1; }
done
if command -v man >/dev/null 2>&1; then
    MANPATH="$prefix/root/share/man" man tweedie | grep -q "EXIT STATUS"
fi
