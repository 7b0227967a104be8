#!/usr/bin/env bash
# What `make install` installs is what programs need: they are built against the installed copy by
# pkg-config and by CMake, dynamically and statically, and run. Then the ABI against the accepted one.
# budget: c
source "$(dirname "$0")/lib.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Not found by its name in a source tree: a prefix that nobody has.
prefix=$work/prefix
greeting="greet.world: hello"
# What a user's own flags would add must not hide what is missing.
unset CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH LIBRARY_PATH LD_LIBRARY_PATH

quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log"; return 1; }; }
needed() { readelf -d "$1" | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p'; }
needs_library() { needed "$1" | grep -qx libfastmq.so.0; }
without_library() { test -x "$1" && ! needed "$1" | grep -q fastmq; }
greets() { [ "$("$@" </dev/null)" = "$greeting" ]; }
is_empty() { [ -z "$(find "$1" ! -type d)" ]; }

check "make install" make --no-print-directory install PREFIX="$prefix"
for file in bin/fastmq lib/libfastmq.so.0 lib/libfastmq.so lib/libfastmq.a include/fastmq.h \
    include/fastmq.hpp share/man/man1/fastmq{,-serve,-pub,-sub,-request,-reply,-top,-config}.1 \
    share/man/man3/fastmq.3 share/bash-completion/completions/fastmq \
    share/zsh/site-functions/_fastmq share/fish/vendor_completions.d/fastmq.fish \
    lib/systemd/system/fastmq.service lib/systemd/system/fastmq.socket; do
    check "$file is there and readable" test -r "$prefix/$file"
done
check "the links lead to the library" \
    test "$(readlink "$prefix/lib/libfastmq.so") $(readlink "$prefix/lib/libfastmq.so.0")" \
    = "libfastmq.so.0 libfastmq.so.$(make -s --eval='v: ; @echo $(VERSION)' v)"
check "the installed command runs" quietly "$prefix/bin/fastmq" version
for name in fastmq{,-serve,-pub,-sub,-request,-reply,-top,-config}.1 fastmq.3; do
    page=$(find "$prefix/share/man" -name "$name")
    if command -v groff >/dev/null; then
        check "$name is a page without a warning" \
            test -z "$(groff -man -Tutf8 -ww -z "$page" 2>&1)"
    else
        skip "$name is a page" "groff is not installed"
    fi
    check "nothing is left to fill in $name" test -z "$(grep -o '@[A-Z_]*@' "$page")"
done
check "fastmq.3 names functions that exist" \
    test -z "$(grep -oE '\bfastmq_[a-z_]+( \(\)|\()' packaging/man/fastmq.3 | tr -d ' ()' |
        sort -u | grep -vxFf ffi/symbols.txt)"
units=("$prefix"/lib/systemd/system/fastmq.{service,socket})
check "nothing is left to fill in the units" test -z "$(grep -oh '@[A-Z_]*@' "${units[@]}")"
if command -v systemd-analyze >/dev/null; then
    check "systemd takes the units" quietly systemd-analyze verify --man=no "${units[@]}"
else
    skip "systemd takes the units" "systemd-analyze is not installed"
fi
commands=$(build/bin/fastmq --help | sed -nE 's/^  ([a-z]+)  .*/\1/p')
documented=$(sed -nE 's/^\.B ([a-z]+)$/\1/p' packaging/man/fastmq.1)
check "fastmq.1 names the commands" test "$commands" = "$documented"

# A full static link needs the static C library, which some systems leave out.
echo 'int main(void) { return 0; }' >"$work/empty.c"
has_static_c() { quietly cc "$work/empty.c" -static -o "$work/empty"; }

by_pkg_config() {
    local flags static
    export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
    flags=$(pkg-config --cflags --libs fastmq)
    static=$(pkg-config --static --cflags --libs fastmq)
    check "pkg-config knows the version" \
        test "$(pkg-config --modversion fastmq)" = "$("$prefix/bin/fastmq" version | cut -d' ' -f2)"
    # shellcheck disable=SC2086 # Flags are words.
    {
        check "pkg-config: C" quietly cc examples/c/hello.c $flags -o "$work/hello"
        check "pkg-config: C++" quietly c++ -std=c++17 examples/cpp/publish_subscribe.cpp $flags \
            -o "$work/publish_subscribe"
        if has_static_c; then
            check "pkg-config --static: C" \
                quietly cc -static examples/c/hello.c $static -o "$work/hello-static"
            check "and it runs alone" greets "$work/hello-static"
            check "pkg-config --static: C++" quietly c++ -std=c++17 -static \
                examples/cpp/publish_subscribe.cpp $static -o "$work/publish_subscribe-static"
            check "and runs alone, too" quietly "$work/publish_subscribe-static"
        else
            skip "pkg-config --static" "there is no static C library"
        fi
    }
    check "the program needs libfastmq.so.0" needs_library "$work/hello"
    check "the C program runs with the installed library" \
        greets env LD_LIBRARY_PATH="$prefix/lib" "$work/hello"
    check "the C++ program runs with the installed library" \
        quietly env LD_LIBRARY_PATH="$prefix/lib" "$work/publish_subscribe"
}

# by_cmake PREFIX NAME LANGUAGE...: configures and builds against a tree, then runs the programs.
by_cmake() {
    local from=$1 name=$2 built=$1-cmake language targets=()
    shift 2
    for language in "$@"; do targets+=("${language}_fastmq" "${language}_static"); done
    check "CMake goes through with $name" \
        quietly cmake -S tests/cpp/installed -B "$built" -DCMAKE_PREFIX_PATH="$from"
    check "and has found the package in it" \
        grep -qxF "fastmq_DIR:PATH=$from/lib/cmake/fastmq" "$built/CMakeCache.txt"
    check "CMake builds against $name" \
        quietly cmake --build "$built" --parallel 2 --target "${targets[@]}"
    for language in "$@"; do
        check "fastmq::fastmq in $language, from $name" quietly "$built/${language}_fastmq"
        check "fastmq::static in $language, from $name" quietly "$built/${language}_static"
        check "fastmq::fastmq needs libfastmq.so.0 in $language, from $name" \
            needs_library "$built/${language}_fastmq"
        check "fastmq::static does not in $language, from $name" \
            without_library "$built/${language}_static"
    done
}

# finds VERSION: whether CMake takes the installed package for it.
finds() {
    mkdir -p "$work/find"
    printf '%s\n' 'cmake_minimum_required(VERSION 3.16)' 'project(find NONE)' \
        "find_package(fastmq $1 REQUIRED)" >"$work/find/CMakeLists.txt"
    quietly cmake -S "$work/find" -B "$work/find/build" -DCMAKE_PREFIX_PATH="$prefix"
}

if command -v pkg-config >/dev/null; then
    by_pkg_config
else
    skip "programs by pkg-config" "pkg-config is not installed"
fi
if command -v cmake >/dev/null; then
    by_cmake "$prefix" "the prefix" c cpp
    # An installed tree may be moved: the package finds its files beside itself.
    cp -r "$prefix" "$work/moved"
    mv "$prefix" "$work/away"
    by_cmake "$work/moved" "a moved tree" c
    mv "$work/away" "$prefix"
    check "CMake takes the version for an earlier patch" finds 0.1.0
    check "CMake does not take it for another minor version" eval '! finds 0.2 >/dev/null'
    check "nor for a major one" eval '! finds 1.0 >/dev/null'
else
    skip "programs by CMake" "cmake is not installed"
fi

# Below DESTDIR, with directories of their own, as packages of distributions are made.
staged=(DESTDIR="$work/stage" PREFIX=/usr LIBDIR=/usr/lib/x86_64-linux-gnu)
check "make install below DESTDIR" make --no-print-directory install "${staged[@]}"
check "the library is in its directory" \
    test -r "$work/stage/usr/lib/x86_64-linux-gnu/libfastmq.so.0"
check "the files do not name DESTDIR" test -z "$(grep -rlF "$work" "$work/stage" --include='fastmq*')"
check "the CMake package goes up as far as it must" grep -q '/../../include"' \
    "$work/stage/usr/lib/x86_64-linux-gnu/cmake/fastmq/fastmq-config.cmake"
check "make uninstall below DESTDIR" make --no-print-directory uninstall "${staged[@]}"
check "and nothing is left there" is_empty "$work/stage"
echo keep >"$prefix/include/other.h"
check "make uninstall" make --no-print-directory uninstall PREFIX="$prefix"
check "what others have installed is left" test -r "$prefix/include/other.h"
rm "$prefix/include/other.h"
check "nothing else is" is_empty "$prefix"
check "nor its own directories" test ! -e "$prefix/include/fastmq"
check "a relative prefix is refused" \
    eval '! make --no-print-directory install PREFIX=here >/dev/null 2>&1'

if ! command -v abidw >/dev/null || ! command -v abidiff >/dev/null; then
    skip "the ABI" "abidw is not installed (Debian: abigail-tools)"
elif [ "$(uname -m)" != x86_64 ]; then
    skip "the ABI" "the accepted one is that of x86-64"
else
    accepted=packaging/abi/libfastmq.abi
    check "the ABI is the accepted one" make --no-print-directory abi-check
    # The comparison itself: a status with another number, and a field with another name.
    sed "s/\(name='FASTMQ_BUSY' value=\)'23'/\1'29'/" "$accepted" >"$work/renumbered.abi"
    sed "s/name='ttl_ns'/name='ttl'/" "$accepted" >"$work/renamed.abi"
    for change in renumbered renamed; do
        check "a status or field that is $change is seen" \
            eval "! abidiff --harmless $accepted $work/$change.abi >/dev/null"
    done
fi
