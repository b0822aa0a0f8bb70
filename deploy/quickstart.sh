#!/usr/bin/env bash
# Davit in one command:   deploy/quickstart.sh [--nodes 2] [--yes]
#
# Installs what is missing, builds, starts a Docker engine if none answers, starts the orchestrator and an agent,
# deploys an example function, calls it from zero and watches it go back to zero.  Run it again: no harm.
#
#   --nodes 2   a second node with an engine of its own, in a network namespace of this machine
#   --stop      end everything that was started here; state stays
#   --purge     the same, and remove the state, the second engine's images and the example's image
#   --yes       ask nothing
# State: DAVIT_HOME, else /var/lib/davit for root and ~/.local/state/davit for others.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/machine.sh
. deploy/machine.sh

if [ "$(id -u)" = 0 ]; then
    HOME_DIR=${DAVIT_HOME:-/var/lib/davit} RUN_DIR=/run/davit-quickstart
else
    HOME_DIR=${DAVIT_HOME:-${XDG_STATE_HOME:-$HOME/.local/state}/davit} RUN_DIR=$HOME_DIR/run
fi
LOG=$HOME_DIR/log/quickstart.log
BIN=$PWD/build/release/bin
IMAGE=davit/hello:latest
NODES=1 ACTION=start ASSUME_YES=

# The second node: its namespace, and a veth pair between it and this machine.
NS=davit-node2 HERE=10.213.7.1 THERE=10.213.7.2 VETH=davit2
NODE2_DIR=$HOME_DIR/node2
NODE2_ENGINE=unix://$RUN_DIR/node2.sock

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then BOLD=$(printf '\033[1m') END=$(printf '\033[0m'); else BOLD='' END=''; fi

step() { printf '%s==> %s%s\n' "$BOLD" "$*" "$END"; }
die() {
    printf 'quickstart: %s\n' "$*" >&2
    exit 1
}
now_ms() { date +%s%3N; }
davit() { "$BIN/davit" --state-dir "$HOME_DIR" "$@"; }

arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
        --nodes)
            NODES=${2:-}
            [[ $NODES =~ ^[12]$ ]] || die "--nodes is 1 or 2"
            shift
            ;;
        --stop) ACTION=stop ;;
        --purge) ACTION=purge ;;
        -y | --yes) ASSUME_YES=1 ;;
        -h | --help)
            sed -n '2,/^set /{/^# \{0,1\}/!d;s///p}' deploy/quickstart.sh
            exit 0
            ;;
        *) die "unknown argument $1 (see --help)" ;;
        esac
        shift
    done
}

ask() {
    [ -z "$ASSUME_YES" ] || return 0
    [ -t 0 ] || die "$1 -- run again with --yes to agree"
    printf '%s Go on? [y/N] ' "$1"
    read -r reply
    [[ $reply =~ ^[yY] ]] || die "nothing was done"
}

# ---------------------------------------------------------------- what the machine needs

packages() {
    if ! machine_is_debian_root; then
        ask "This is not a Debian or Ubuntu machine with you as root; nothing will be installed, the rest is tried."
        return 0
    fi
    local missing
    mapfile -t missing < <(machine_missing_packages "${MACHINE_BUILD_PACKAGES[@]}" "${MACHINE_RUN_PACKAGES[@]}")
    [ ${#missing[@]} -gt 0 ] || return 0
    step "Installing ${missing[*]}"
    machine_install "${missing[@]}" >>"$LOG" 2>&1 || {
        tail -n 20 "$LOG" >&2
        die "apt-get failed, see $LOG"
    }
}

build() {
    step "Building (build/release)"
    { cmake --preset release -DDAVIT_TESTS=OFF && cmake --build --preset release -j "$(nproc)"; } >>"$LOG" 2>&1 || {
        tail -n 30 "$LOG" >&2
        die "the build failed, see $LOG"
    }
}

engine() {
    machine_engine_answers && return 0
    step "Starting a Docker engine"
    machine_engine_up "$HOME_DIR/log/dockerd.log" || die "no Docker engine, see $HOME_DIR/log/dockerd.log"
    [ -z "$MACHINE_DOCKERD_PID" ] || echo "$MACHINE_DOCKERD_PID" >"$RUN_DIR/dockerd.pid"
}

# ---------------------------------------------------------------- the second node

in_node2() { nsenter --net="/run/netns/$NS" "$@"; }

node2_network() {
    [ -e "/run/netns/$NS" ] || ip netns add "$NS"
    ip link show "$VETH" >/dev/null 2>&1 || ip link add "$VETH" type veth peer name eth0 netns "$NS"
    ip addr replace "$HERE/30" dev "$VETH"
    ip link set "$VETH" up
    in_node2 ip addr replace "$THERE/30" dev eth0
    in_node2 ip link set eth0 up
    in_node2 ip link set lo up
}

node2_engine() {
    machine_engine_answers "$RUN_DIR/node2.sock" && return 0
    step "Starting the second node's engine"
    mkdir -p "$NODE2_DIR/docker" "$RUN_DIR/node2"
    rm -f "$RUN_DIR/node2.pid"
    in_node2 setsid dockerd --icc=false --data-root "$NODE2_DIR/docker" --exec-root "$RUN_DIR/node2" -H "$NODE2_ENGINE" \
        --pidfile "$RUN_DIR/node2.pid" --containerd-namespace "$NS" --containerd-plugins-namespace "$NS-plugins" \
        >>"$HOME_DIR/log/dockerd2.log" 2>&1 </dev/null &
    machine_wait 60 machine_engine_answers "$RUN_DIR/node2.sock" || {
        tail -n 15 "$HOME_DIR/log/dockerd2.log" >&2
        die "the second engine does not answer"
    }
}

node2_up() {
    in_node2 "$BIN/davit" --state-dir "$NODE2_DIR" cluster up --join "http://$HERE:8080" \
        --token-file "$HOME_DIR/orchestrator/join-token" --agent-listen "$THERE:8090" --docker "$NODE2_ENGINE" \
        --name "$(hostname)-2" 2>>"$LOG" || die "the second agent did not start, see $NODE2_DIR/log/agent.log"
}

ready_nodes() { davit nodes 2>>"$LOG" | awk '$2 == "ready"' | wc -l; }
have_nodes() { [ "$(ready_nodes)" -ge "$1" ]; }

# ---------------------------------------------------------------- the show

cluster() {
    step "Starting the cluster"
    if [ "$NODES" = 2 ]; then
        # A cluster of one node listens where the second node cannot reach it: it moves.
        if [ -e "$HOME_DIR/gateway" ] && [ "$(cat "$HOME_DIR/gateway")" != "http://$HERE:8080" ]; then
            davit cluster down --keep-replicas
        fi
        davit cluster up --listen "$HERE:8080"
        node2_up
        machine_wait 20 have_nodes 2 || die "the second node is not ready, see $NODE2_DIR/log/agent.log"
    else
        davit cluster up
    fi
}

replicas() { davit list | awk '$1 == "hello" { print $3 }'; }
asleep() { [ "$(davit list | awk '$1 == "hello" { print $2 }')" = asleep ]; }

show() {
    local url
    url=$(cat "$HOME_DIR/gateway")
    step "Deploying the example function"
    davit deploy hello --image "$IMAGE" --idle 2s --label quickstart=yes
    asleep || machine_wait 20 asleep || die "hello should sleep before its first call"
    step "Calling it: no replica runs, the request waits for one"
    echo "    \$ curl -i $url/function/hello"
    local answer
    answer=$(curl -sS -i -m 60 "$url/function/hello" -d 'World') || die "no answer"
    printf '%s\n' "$answer" | tr -d '\r' | grep -iE '^(HTTP/|server-timing:|x-call-id:|Hello)' | sed 's/^/    /'
    printf '%s' "$answer" | grep -q 'Hello, World!' || die "that was not the function's answer: $answer"
    echo "    running now: $(replicas) (ready/wanted)"
    step "Nobody calls: after 2 s without requests it goes back to zero"
    machine_wait 30 asleep || die "hello is still up: $(davit list)"
    davit list | sed 's/^/    /'
}

next() {
    local url
    url=$(cat "$HOME_DIR/gateway")
    cat <<TEXT

${BOLD}It works.${END} Our part took $1 ms. What to try next:

    export PATH=$BIN:\$PATH
    davit list                                              functions and how they are
    davit deploy wc --image busybox --stdio -- wc -c        any command in any image is a function
    echo hello | davit invoke wc
    davit describe hello                                    what happened, and why
    davit nodes; davit logs hello
    curl -u admin:\$(cat $HOME_DIR/orchestrator/admin-password) $url/v1/functions

    deploy/quickstart.sh --stop                             ends all of it
TEXT
}

start() {
    mkdir -p "$HOME_DIR/log" "$RUN_DIR"
    chmod 755 "$HOME_DIR"
    packages
    build
    engine
    if [ "$NODES" = 2 ]; then
        node2_network
        node2_engine
    fi
    local begin
    begin=$(now_ms)
    cluster
    step "Building the example's image"
    if [ "$NODES" = 2 ]; then
        deploy/examples/hello/build.sh "$IMAGE" unix:///var/run/docker.sock "$NODE2_ENGINE"
    else
        deploy/examples/hello/build.sh "$IMAGE"
    fi
    show
    next $(($(now_ms) - begin))
}

stop() {
    if [ -x "$BIN/davit" ]; then
        if [ -d "$NODE2_DIR" ]; then
            "$BIN/davit" --state-dir "$NODE2_DIR" cluster down --docker "$NODE2_ENGINE" 2>&1 | sed 's/^/node 2: /'
        fi
        davit cluster down
    fi
    machine_stop "$(cat "$RUN_DIR/node2.pid" 2>/dev/null || true)" dockerd 30
    machine_stop "$(cat "$RUN_DIR/dockerd.pid" 2>/dev/null || true)" dockerd 30
    ip link delete "$VETH" 2>/dev/null || true
    if [ -e "/run/netns/$NS" ]; then
        ip netns delete "$NS"
    fi
}

purge() {
    # The image goes while an engine still runs.
    if machine_engine_answers; then
        docker image rm "$IMAGE" >/dev/null 2>&1 || true
    fi
    stop
    findmnt -rno TARGET | grep -E "^($NODE2_DIR|$RUN_DIR)/" | sort -r | xargs -r umount 2>/dev/null || true
    rm -rf "$HOME_DIR" "$RUN_DIR"
    echo "removed $HOME_DIR"
}

arguments "$@"
[ "$(id -u)" = 0 ] || [ "$ACTION" != start ] || [ "$NODES" = 1 ] || die "--nodes 2 needs root"
$ACTION
