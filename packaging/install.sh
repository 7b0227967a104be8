#!/usr/bin/env bash
# Installs what `make build` has made, or takes it away: `make install`, `make uninstall`. Both walk
# over the one list below, so that they cannot drift apart.
#
# From the environment: PREFIX, BINDIR, LIBDIR, INCLUDEDIR, MANDIR, UNITDIR (absolute), DESTDIR (goes in front
# of each), VERSION, SONAME.
set -euo pipefail
cd "$(dirname "$0")/.."
action=$1
: "${DESTDIR:=}"
for directory in "$PREFIX" "$BINDIR" "$LIBDIR" "$INCLUDEDIR" "$MANDIR" "$UNITDIR"; do
    if [[ $directory != /* ]]; then
        echo "$directory is no absolute path; PREFIX and the other directories must be" >&2
        exit 2
    fi
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# put MODE SOURCE TARGET: a file.
put() {
    if [ "$action" = install ]; then
        install -D -m "$1" "$2" "$DESTDIR$3"
    else
        rm -f "$DESTDIR$3"
    fi
}

# link TO TARGET: a symbolic link.
link() {
    if [ "$action" = install ]; then
        ln -sfn "$1" "$DESTDIR$2"
    else
        rm -f "$DESTDIR$2"
    fi
}

# fill SOURCE TARGET: a file with @NAMES@ filled in.
fill() {
    local from_lib
    from_lib=$(realpath -m --relative-to="$LIBDIR" "$INCLUDEDIR")
    sed -e "s|@PREFIX@|$PREFIX|g" -e "s|@BINDIR@|$BINDIR|g" -e "s|@LIBDIR@|$LIBDIR|g" -e "s|@INCLUDEDIR@|$INCLUDEDIR|g" \
        -e "s|@VERSION@|$VERSION|g" -e "s|@SONAME@|$SONAME|g" \
        -e "s|@INCLUDE_FROM_LIB@|$from_lib|g" "$1" >"$work/filled"
    put 644 "$work/filled" "$2"
}

put 755 build/bin/fastmq "$BINDIR/fastmq"
put 755 "build/lib/libfastmq.so.$VERSION" "$LIBDIR/libfastmq.so.$VERSION"
link "libfastmq.so.$VERSION" "$LIBDIR/$SONAME"
link "$SONAME" "$LIBDIR/libfastmq.so"
put 644 build/lib/libfastmq.a "$LIBDIR/libfastmq.a"
put 644 include/fastmq.h "$INCLUDEDIR/fastmq.h"
put 644 bindings/cpp/fastmq.hpp "$INCLUDEDIR/fastmq.hpp"
for part in bindings/cpp/fastmq/*.hpp; do
    put 644 "$part" "$INCLUDEDIR/fastmq/$(basename "$part")"
done
fill packaging/fastmq.pc.in "$LIBDIR/pkgconfig/fastmq.pc"
fill packaging/cmake/fastmq-config.cmake.in "$LIBDIR/cmake/fastmq/fastmq-config.cmake"
fill packaging/cmake/fastmq-config-version.cmake.in \
    "$LIBDIR/cmake/fastmq/fastmq-config-version.cmake"
fill packaging/fastmq.service "$UNITDIR/fastmq.service"
put 644 packaging/fastmq.socket "$UNITDIR/fastmq.socket"
fill packaging/man/fastmq.1 "$MANDIR/man1/fastmq.1"
fill packaging/man/fastmq.3 "$MANDIR/man3/fastmq.3"
# say TARGET ARGUMENT...: what the command writes about itself.
say() {
    local target=$1
    shift
    [ "$action" = uninstall ] || build/bin/fastmq "$@" >"$work/said"
    put 644 "$work/said" "$target"
}
for name in serve pub sub request reply top config; do
    say "$MANDIR/man1/fastmq-$name.1" man $name
done
say "$PREFIX/share/bash-completion/completions/fastmq" completions bash
say "$PREFIX/share/zsh/site-functions/_fastmq" completions zsh
say "$PREFIX/share/fish/vendor_completions.d/fastmq.fish" completions fish

# Directories that are nobody else's.
if [ "$action" = uninstall ]; then
    rmdir "$DESTDIR$INCLUDEDIR/fastmq" "$DESTDIR$LIBDIR/cmake/fastmq" 2>/dev/null || true
fi
