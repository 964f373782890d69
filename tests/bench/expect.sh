# Sourced by the tests of scripts: a folder that goes away, and `expect`. $case names what is run,
# $log holds what it said, $bad becomes 1 when something was not as expected.
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
bad=0
expect() { # expect WHAT CONDITION...
    what=$1
    shift
    "$@" || {
        echo "$(basename "$0" .sh), $case: $what"
        cat "$log"
        bad=1
    }
}
executable() { # executable PATH: the text comes from standard input
    cat >"$1" && chmod +x "$1"
}
