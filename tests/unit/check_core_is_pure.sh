#!/bin/sh
# The decisions are pure: a core library may name symbols of the rows above it, memory and string functions,
# formatting into memory, mathematics and assert.  Anything else (sockets, files, clocks, threads, logs) fails.
# Usage: check_core_is_pure.sh LIBRARY.a...
set -eu
allowed='^(dv_[a-z0-9_]+|mem[a-z]+|str[a-z]+|v?snprintf|__v?snprintf_chk|__mem[a-z]+_chk|__str[a-z]+_chk'
allowed="$allowed|f?(ceil|floor|log|log2|log1p|exp|pow|sqrt|round|fmax|fmin|fabs|isnan|isinf)f?|llround|lround|nan|qsort|bsearch|abort"
allowed="$allowed|__assert_fail|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_|__(asan|ubsan|tsan|gcov|llvm|sanitizer)_[a-z0-9_]+"
allowed="$allowed|_?_?asan_[a-z0-9_]+|__start_.*|__stop_.*)\$"
# dv_ symbols of rows that do I/O are refused by name.
refused='^dv_(log|loop|clock|timer|io|mailbox|http|linkio|store|gateway|control)(_|$)'
bad=0
for lib in "$@"; do
    for symbol in $(nm -u "$lib" | awk '$1 == "U" || $1 == "w" { print $2 }' | sed 's/@.*//' | sort -u); do
        if ! printf '%s\n' "$symbol" | grep -Eq "$allowed" || printf '%s\n' "$symbol" | grep -Eq "$refused"; then
            echo "$lib uses $symbol" >&2
            bad=1
        fi
    done
done
exit $bad
