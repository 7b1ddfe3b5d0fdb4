# What the wrappers of peers share: the contract of a server executable (ARCHITECTURE.md) around a program that has
# a configuration file. Sourced, not run. A wrapper sets
#   name, description   as --describe says them
#   program, package    the command, and the Debian package that brings it
#   workers_default     how --workers is counted (one loop is compared with one loop)
#   limit, limit_reason connections that it holds at once
# and defines
#   configure           writes $work/conf for $host, $port, $workers, $root, $idle_s, $requests
#   launch              starts the program with it in the background (through `tied`)
# optionally own_flag FLAG VALUE (true if it is one of its own), own_usage, flavours (JSON), protocols (JSON), stop_signal, is_up
# (true when everything that will serve is there: bench looks for the processes of a server once).
# shellcheck shell=bash disable=SC2034,SC2154
set -euo pipefail

flavours='[]' protocols='["http"]' stop_signal=TERM listen=127.0.0.1:0 workers=1 root='' describe='' idle_s=30 drain_s=5 requests=0
number='^[0-9]+$'

fail() { echo "serve-$name: $1" >&2; exit 2; }
why() { tail -n 2 "$work/error.log" 2>/dev/null | tr '\n' ' '; }
own_flag() { return 1; }
own_usage=''
is_up() { true; }

# 30s, 500ms, 2m -> whole seconds, rounded up.
seconds() {
    case $1 in
    *ms) [[ ${1%ms} =~ $number ]] && echo $(((${1%ms} + 999) / 1000)) && return ;;
    *s) [[ ${1%s} =~ $number ]] && echo "${1%s}" && return ;;
    *m) [[ ${1%m} =~ $number ]] && echo $((${1%m} * 60)) && return ;;
    esac
    return 1
}

read_flags() {
    while [ $# -gt 0 ]; do
        local flag=$1
        if [ "$flag" = --describe ]; then describe=yes; shift; continue; fi
        [ $# -ge 2 ] || fail "$flag wants a value, or is unknown"
        case $flag in
        --listen) listen=$2 ;;
        --protocol) [ "$2" = http ] || fail "$program speaks http only; leave --protocol $2 out" ;;
        --workers) [[ $2 =~ $number ]] || fail "--workers $2 is not a number"; workers=$2 ;;
        --root) root=$(realpath -e -- "$2" 2>/dev/null) || fail "cannot read $2 under --root; choose a directory you may read" ;;
        # The wrapper's own limit stands: the program's configuration is the same for every workload.
        --conns-max) [[ $2 =~ $number ]] || fail "--conns-max $2 is not a number" ;;
        --idle-timeout) idle_s=$(seconds "$2") || fail "$flag $2 is not a time such as 30s" ;;
        --drain-timeout) drain_s=$(seconds "$2") || fail "$flag $2 is not a time such as 5s" ;;
        --keepalive-requests) [[ $2 =~ $number ]] || fail "--keepalive-requests $2 is not a number"; requests=$2 ;;
        *) own_flag "$flag" "$2" || fail "unknown flag $flag; it knows --listen, --workers, --root, --idle-timeout, --keepalive-requests, --describe$own_usage" ;;
        esac
        shift 2
    done
    host=${listen%:*} port=${listen##*:}
    [[ $port =~ $number ]] || fail "--listen $listen is not ADDR:PORT"
}

# One line of JSON. The program's sockets keep the system's congestion control, which none of them can be told.
describe() {
    local unavailable=null
    command -v "$program" >/dev/null || unavailable="\"$program is not installed; apt-get install $package\""
    echo '{"name":"'"$name"'","description":"'"$description"'","place":{"blocks_in":['"${blocks_in:-\"epoll_wait\"}"'],"copied_by":"the thread"},"protocols":'"$protocols"',"paths":["/","/files/*"],"workers":"loops","limits":{"connections_max":'"$limit"',"connections_max_reason":"'"$limit_reason"'"},"flavours":'"$flavours"',"unavailable":'"$unavailable"'}'
}

# Runs a program whose life ends with ours, even if we are killed.
tied() {
    if command -v setpriv >/dev/null; then exec setpriv --pdeathsig TERM "$@"; else exec "$@"; fi
}

# The whole life of a wrapper.
main() {
    read_flags "$@"
    if [ -n "$describe" ]; then describe; exit 0; fi
    command -v "$program" >/dev/null || fail "$program is not installed; apt-get install $package"
    [ -z "$root" ] || [ -r "$root" ] || fail "cannot read $root under --root; choose a directory you may read"
    work=$(mktemp -d)
    server_pid=
    trap 'rm -rf "$work"' EXIT
    chmod 755 "$work"
    printf 'Hello, world!' >"$work/hello.txt"
    start
    stopping=
    trap 'stopping=yes' TERM INT
    echo "listening $host:$port model=$name pid=$server_pid"
    wait_for_end
    # The program counts no requests; the line says what is known.
    echo '{"model":"'"$name"'","workers":'"$workers"'}'
    [ -n "$stopping" ] || { echo "serve-$name: $program ended: $(why)" >&2; exit 1; }
}

# These programs cannot be asked which port they were given, so a free one is tried for.
start() {
    local asked=$port try
    for try in 1 2 3 4 5 6 7 8 9 10; do
        [ "$asked" != 0 ] || port=$((20000 + RANDOM % 10000))
        rm -f "$work/pid"
        configure
        launch >>"$work/error.log" 2>&1 &
        server_pid=$!
        # Up when it has written its pid file, which all of them do behind bind(2); gone when it could not bind.
        while kill -0 "$server_pid" 2>/dev/null && [ ! -s "$work/pid" ]; do sleep 0.02; done
        while kill -0 "$server_pid" 2>/dev/null && ! is_up; do sleep 0.02; done
        ! kill -0 "$server_pid" 2>/dev/null || return 0
        wait "$server_pid" || true
        [ "$asked" = 0 ] || fail "cannot listen on $listen: $(why)"
    done
    fail "could not be started in $try tries: $(why)"
}

# `wait` returns early when a signal came.
wait_for_end() {
    while [ -z "$stopping" ] && kill -0 "$server_pid" 2>/dev/null; do wait "$server_pid" || true; done
    [ -n "$stopping" ] || return 0
    kill -"$stop_signal" "$server_pid" 2>/dev/null || true
    local tenths=0
    while kill -0 "$server_pid" 2>/dev/null && [ $tenths -lt $((drain_s * 10)) ]; do sleep 0.1; tenths=$((tenths + 1)); done
    # Some wait for idle connections to go, for as long as those like.
    kill -KILL "$server_pid" 2>/dev/null || true
    wait "$server_pid" || true
}
