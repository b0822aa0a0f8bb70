#!/usr/bin/env bash
# Everything that CI runs, from a bare Debian 12 machine as root:   tests/run.sh
# A part of it, with the dev preset (DAVIT_PRESET):                 tests/run.sh unit contract fault sim integration e2e bench
#                                                                   tests/run.sh lint build asan valgrind tsan fuzz
# Last line: "N passed, N failed, N skipped", counting cmocka cases and scripted scenarios, and as one each: a build,
# a lint check, a program under valgrind, a fuzz target.  Exit code 0 when nothing failed.
# Environment: DAVIT_FUZZ_SECONDS (60), DAVIT_PRESET (dev; ci without arguments), DAVIT_JOBS (number of cores).
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
# shellcheck source=deploy/machine.sh
. deploy/machine.sh

JOBS=${DAVIT_JOBS:-$(nproc)}
LOGS=$PWD/build/test-logs
RESULTS=$LOGS/results.tsv
STARTED=$SECONDS

say() { printf '[%4d s] %s\n' $((SECONDS - STARTED)) "$*"; }
record() { printf '%s\t%s\t%s\t%s\n' "$@" >>"$RESULTS"; }

finish() {
    local status=$?
    trap - EXIT INT TERM
    if [ -n "$MACHINE_DOCKERD_PID" ]; then
        machine_stop "$MACHINE_DOCKERD_PID" dockerd 30
    fi
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

# Run a command with its output in a file; the file's end is shown when it fails.
quietly() { # NAME COMMAND...
    local log=$LOGS/$1.log
    shift
    if "$@" >"$log" 2>&1 </dev/null; then
        return 0
    fi
    echo "---- the end of $log"
    tail -n 40 "$log"
    echo "----"
    return 1
}

check() { # SUITE NAME COMMAND...: one counted check
    local suite=$1 name=$2
    shift 2
    say "$suite: $name"
    if quietly "$suite-$name" "$@"; then
        record pass "$suite" "$name" ""
    else
        record fail "$suite" "$name" "see $LOGS/$suite-$name.log"
        return 1
    fi
}

declare -A BUILT=()

build() { # PRESET [TARGET...]: once per run
    local preset=$1
    shift
    if [ -n "${BUILT[$preset]:-}" ]; then
        return "${BUILT[$preset]}"
    fi
    configure_and_build() {
        cmake --preset "$preset" && cmake --build --preset "$preset" -j "$JOBS" ${1:+--target "$@"}
    }
    check build "$preset" configure_and_build "$@"
    BUILT[$preset]=$?
    return "${BUILT[$preset]}"
}

# Run ctest and count its cases.
ctests() { # SUITE PRESET CTEST_ARGUMENT...
    local suite=$1 preset=$2 log=$LOGS/ctest-$1.log before after
    shift 2
    say "$suite ($preset)"
    before=$(wc -l <"$RESULTS")
    (cd "build/$preset" && ctest -V --no-tests=error --timeout 900 "$@") >"$log" 2>&1 </dev/null
    local status=$?
    python3 tests/support/tally.py "$suite" <"$log" >>"$RESULTS"
    after=$(wc -l <"$RESULTS")
    if [ "$after" = "$before" ]; then
        record fail "$suite" "(ctest)" "no test ran, exit code $status, see $log"
    fi
    tail -n +$((before + 1)) "$RESULTS" | awk -F'\t' '{n[$1]++} END {
        printf "         %d passed, %d failed, %d skipped so far in this part\n", n["pass"], n["fail"], n["skip"]}'
    if tail -n +$((before + 1)) "$RESULTS" | grep -q '^fail'; then
        echo "---- failing parts of $log"
        grep -E '^[0-9]+: .*(\[  ERROR|\[   LINE|\[  FAILED|ERROR: |SUMMARY: |runtime error)' "$log" | tail -n 60
        echo "----"
    fi
}

engine() {
    machine_engine_up "$LOGS/dockerd.log" || record fail machine "docker engine" "no dockerd answers, see $LOGS/dockerd.log"
}

sources() { git ls-files -co --exclude-standard -- '*.c' '*.h'; }

lint_format() { sources | xargs -r clang-format --dry-run --Werror; }
lint_shell() { git ls-files -co --exclude-standard -- '*.sh' .ci/run | xargs -r -n1 bash -n; }
lint_python() { git ls-files -co --exclude-standard -- '*.py' tests/bench | grep -vE '[.](c|h|txt|md)$' | sort -u | xargs -r python3 -c 'import ast, sys
for f in sys.argv[1:]: ast.parse(open(f).read(), f)'; }
lint_openapi() { python3 tests/support/lint_openapi.py proto/openapi.yaml; }
# The pure parts.  The analyzer's own findings are listed in the log, but it cannot see invariants across functions
# and therefore decides nothing.
lint_tidy() {
    [ -f build/ci-clang/compile_commands.json ] || cmake --preset ci-clang >/dev/null || return 1
    git ls-files -- 'proto/base/*.c' 'proto/wire/*.c' 'orchestrator/core/*.c' 'agent/core/*.c' |
        xargs -r -P "$JOBS" -n 4 clang-tidy --quiet -p build/ci-clang \
            --warnings-as-errors='bugprone-*,cert-*,misc-*,performance-*,readability-*'
}

part_lint() {
    check lint clang-format lint_format
    check lint shell-syntax lint_shell
    check lint python-syntax lint_python
    [ ! -f proto/openapi.yaml ] || check lint openapi lint_openapi
    check lint clang-tidy lint_tidy
}

part_build() {
    build ci
    build ci-clang
}

part_label() { # LABEL PRESET
    case $1 in unit | fault | sim) ;; *) engine ;; esac
    [ "$1" != sim ] || export DAVIT_SIM_SEEDS="${DAVIT_SIM_SEEDS:-1000}" # ctest alone: a few
    local parallel=$JOBS
    case $1 in integration | e2e) parallel=1 ;; esac
    ctests "$1" "$2" -L "^$1\$" -j "$parallel"
    [ "$1" != sim ] || check sim figures "build/$2/bench/davit-sim" --azure --shapes --fns=100 --minutes=10 --seeds=1 --json
}

part_asan() {
    engine
    build asan-ubsan || return
    export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1
    export LSAN_OPTIONS=suppressions=$PWD/tests/support/lsan.supp:print_suppressions=0
    ctests asan-ubsan asan-ubsan -L '^(unit|contract|fault)$' -j "$JOBS"
}

# That every bench works; nothing is judged by figures of a machine that does other things.
part_bench() { # PRESET
    local name
    export DAVIT_BUILD=$PWD/build/$1 PYTHONDONTWRITEBYTECODE=1
    for name in warm cores stream mixed fanout soak; do
        check bench "$name-smoke" timeout 180 "tests/bench/$name" --smoke --json
    done
    check bench cold-smoke env DAVIT_BIN="$DAVIT_BUILD/bin" timeout 180 tests/bench/cold --smoke --json
    check bench decide-smoke timeout 60 "$DAVIT_BUILD/bench/bench_decide" --smoke --json
    unset DAVIT_BUILD
}

memcheck() { # PROGRAM
    local name
    name=$(basename "$1")
    if valgrind --quiet --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
        --child-silent-after-fork=yes --error-exitcode=99 "$1" >"$LOGS/valgrind-$name.log" 2>&1 </dev/null; then
        record pass valgrind "$name" ""
    else
        record fail valgrind "$name" "exit code $?, see $LOGS/valgrind-$name.log"
    fi
}

part_valgrind() { # PRESET
    say "valgrind on unit and fault tests ($1)"
    export -f memcheck record
    export LOGS RESULTS
    git ls-files -co --exclude-standard -- tests/unit tests/fault |
        sed -nE "s#^tests/(unit|fault)/(test_.*)\.c\$#build/$1/tests/\1_\2#p" | sort | xargs -r -P "$JOBS" -n 1 bash -c 'memcheck "$0"'
}

# Only what has threads; the rest would pay the sanitizer for nothing.
part_tsan() {
    local pattern='loop|mailbox|storer|gateway|linkio|carry|log|freeze' targets
    targets=$(git ls-files -co --exclude-standard -- tests/unit tests/contract |
        sed -nE "s#^tests/(unit|contract)/(test_.*($pattern).*)\.c\$#\1_\2#p")
    if [ -z "$targets" ]; then
        record skip tsan "(all)" "no test of loop, mailbox, storer or gateway in the tree"
        return
    fi
    engine
    # shellcheck disable=SC2086
    build tsan $targets || return
    export TSAN_OPTIONS="suppressions=$PWD/tests/support/tsan.supp halt_on_error=1"
    ctests tsan tsan -L '^(unit|contract)$' -R "test_.*($pattern)" -j "$JOBS"
}

fuzz_one() { # PROGRAM
    local name corpus
    name=$(basename "$1")
    corpus=build/fuzz/corpus/$name
    mkdir -p "$corpus" build/fuzz/artifacts "tests/fuzz/corpus/$name"
    if "$1" -max_total_time="${DAVIT_FUZZ_SECONDS:-60}" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="build/fuzz/artifacts/$name-" "$corpus" "tests/fuzz/corpus/$name" \
        >"$LOGS/$name.log" 2>&1 </dev/null; then
        record pass fuzz "$name" ""
    else
        record fail fuzz "$name" "$(grep -m1 -E 'ERROR|SUMMARY|runtime error' "$LOGS/$name.log"), see $LOGS/$name.log"
        tail -n 30 "$LOGS/$name.log"
    fi
    rmdir "tests/fuzz/corpus/$name" tests/fuzz/corpus 2>/dev/null
}

part_fuzz() {
    build fuzz || return
    say "fuzz targets, ${DAVIT_FUZZ_SECONDS:-60} s each, $JOBS at once"
    export -f fuzz_one record
    export LOGS RESULTS
    find build/fuzz/fuzz -maxdepth 1 -type f -executable -name 'fuzz_*' 2>/dev/null | sort >"$LOGS/fuzz-targets"
    if [ ! -s "$LOGS/fuzz-targets" ]; then
        record fail fuzz "(all)" "the tree has no fuzz target"
    fi
    xargs -r -a "$LOGS/fuzz-targets" -P "$JOBS" -n 1 bash -c 'fuzz_one "$0"'
}

part_all() {
    part_lint
    build ci && {
        for label in unit contract fault sim; do part_label "$label" ci; done
        part_valgrind ci
    }
    build ci-clang
    part_asan
    part_tsan
    part_fuzz
    if [ -x build/ci/bin/davit-orchestrator ]; then
        part_label integration ci
        part_label e2e ci
        part_bench ci
    else
        record fail integration "(all)" "no programs: the build failed"
    fi
}

prepare() {
    mkdir -p "$LOGS" && : >"$RESULTS"
    command -v apt-get >/dev/null || return 0
    local missing
    mapfile -t missing < <(machine_missing_packages "${MACHINE_BUILD_PACKAGES[@]}" "${MACHINE_RUN_PACKAGES[@]}" \
        "${MACHINE_TEST_PACKAGES[@]}")
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    quietly apt machine_install "${missing[@]}" || {
        echo "cannot install ${missing[*]}: run as root, or install them first" >&2
        record fail machine "packages" "see $LOGS/apt.log"
        return 1
    }
}

summary() {
    awk -F'\t' '$1 == "skip" { print "skipped: " $2 ": " $3 ": " $4 }' "$RESULTS"
    awk -F'\t' '$1 == "fail" { print "FAILED: " $2 ": " $3 ": " $4 }' "$RESULTS"
    awk -F'\t' '{ n[$1]++ } END { printf "%d passed, %d failed, %d skipped\n", n["pass"], n["fail"], n["skip"]; exit n["fail"] > 0 }' \
        "$RESULTS"
}

main() {
    local part preset=${DAVIT_PRESET:-dev}
    for part in "$@"; do
        case $part in
        all | lint | build | unit | contract | fault | sim | integration | e2e | bench | asan | valgrind | tsan | fuzz) ;;
        *)
            sed -n '2,7s/^# //p' tests/run.sh >&2
            exit 2
            ;;
        esac
    done
    prepare && for part in "${@:-all}"; do
        case $part in
        unit | contract | fault | sim | integration | e2e) build "$preset" && part_label "$part" "$preset" ;;
        valgrind | bench) build "$preset" && "part_$part" "$preset" ;;
        *) "part_$part" ;;
        esac
    done
    say "done"
    summary
}

main "$@"
