# shellcheck shell=bash
# What quickstart.sh and tests/run.sh need of a machine: packages, and a Docker Engine that answers.
# Sourced, never run.  Whatever is started here is remembered, so that it (and only it) is stopped again.

MACHINE_BUILD_PACKAGES=(build-essential cmake ninja-build pkg-config musl-tools
    libcurl4-gnutls-dev libcjson-dev libmicrohttpd-dev libcgroup-dev libsqlite3-dev libgnutls28-dev libyaml-dev)
MACHINE_RUN_PACKAGES=(docker.io iptables iproute2 procps curl ca-certificates)
MACHINE_TEST_PACKAGES=(clang clang-format clang-tidy libclang-rt-14-dev libcmocka-dev valgrind
    busybox-static nginx haproxy python3 python3-yaml jq git)

MACHINE_DOCKERD_PID=

machine_is_debian_root() {
    [ "$(id -u)" = 0 ] && [ -r /etc/os-release ] && grep -qE '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release
}

machine_missing_packages() { # PACKAGE... -> those not installed, one a line
    local p
    for p in "$@"; do
        dpkg-query -W -f='${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || echo "$p"
    done
}

# Services that come with a package are not started by its installation: whether an engine runs is decided below.
machine_install() { # PACKAGE...
    local policy=/usr/sbin/policy-rc.d made=0 status=0
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made=1
    fi
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -q && apt-get install -q -y --no-install-recommends "$@"; } </dev/null || status=$?
    [ "$made" = 0 ] || rm -f "$policy"
    return "$status"
}

machine_engine_answers() { # [SOCKET]
    curl -sf -m 5 --unix-socket "${1:-/var/run/docker.sock}" http://engine/_ping >/dev/null 2>&1
}

machine_wait() { # SECONDS COMMAND...: until it succeeds
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

# Make sure an engine answers on the usual socket.  MACHINE_DOCKERD_PID is set when we started it ourselves.
machine_engine_up() { # LOG_FILE
    machine_engine_answers && return 0
    if [ -d /run/systemd/system ] && systemctl start docker >>"$1" 2>&1 && machine_wait 60 machine_engine_answers; then
        return 0
    fi
    mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup >>"$1" 2>&1 || true
    # A pid file left behind by an engine that was killed names a process that may be anything by now.
    if [ -f /var/run/docker.pid ] && ! machine_pid_is "$(cat /var/run/docker.pid)" dockerd; then
        rm -f /var/run/docker.pid
    fi
    setsid dockerd --icc=false >>"$1" 2>&1 </dev/null &
    MACHINE_DOCKERD_PID=$!
    machine_wait 60 machine_engine_answers && return 0
    echo "dockerd does not answer; its last words:" >&2
    tail -n 15 "$1" >&2
    return 1
}

machine_pid_is() { # PID NAME
    [ -n "$1" ] && [ "$(cat "/proc/$1/comm" 2>/dev/null)" = "$2" ]
}

# TERM, then KILL after the given seconds; only when the process still is what we started.
machine_stop() { # PID NAME SECONDS
    machine_pid_is "$1" "$2" || return 0
    kill "$1" 2>/dev/null || return 0
    machine_wait "$3" machine_gone "$1" "$2" || kill -9 "$1" 2>/dev/null || true
}

machine_gone() { # PID NAME
    ! machine_pid_is "$1" "$2" || [ "$(cut -d' ' -f3 "/proc/$1/stat" 2>/dev/null)" = Z ]
}
