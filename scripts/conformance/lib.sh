# What every check needs: servers that are started and ended, verdicts that are counted.

PASSED=0 FAILED=0 SKIPPED=0
# The server that is running, if any: process id, address.
SERVER='' ADDRESS=''

stop_here() {
    echo "conformance: $1" >&2
    exit 2
}

# verdict STATUS CHECK MODEL WHY: one line; WHY is for a failure.
verdict() {
    if [ "$1" = 0 ]; then
        PASSED=$((PASSED + 1))
        printf 'PASS  %-18s %s\n' "$3" "$2"
    else
        FAILED=$((FAILED + 1))
        printf 'FAIL  %-18s %s: %s\n' "$3" "$2" "$4"
    fi
}

skip() {
    SKIPPED=$((SKIPPED + 1))
    printf 'SKIP  %-18s %s: %s\n' "$2" "$1" "$3"
}

# tool COMMAND CHECK MODEL: false, and a line, where the command is not installed.
tool() {
    command -v "$1" >/dev/null && return 0
    skip "$1 $2" "$3" "$1 is not installed"
    return 1
}

# variants MODEL: the model as it is, and every value of a flavour of words that is not the default,
# as the server describes itself: `threads`, `threads+duplex=on`. (A flavour that is a number is a
# size, and no other way of waiting.)
variants() {
    "$BIN/serve-$1" --describe | python3 -c '
import json, sys
said = json.load(sys.stdin)
print(sys.argv[1])
for flavour in said.get("flavours", []):
    if isinstance(flavour["values"], list):
        for value in flavour["values"]:
            if value != flavour["default"]:
                print("%s+%s=%s" % (sys.argv[1], flavour["flag"], value))
' "$1"
}

# flags VARIANT: sets MODEL and FLAGS (an array) to what the variant is started as.
flags() {
    local part
    MODEL=${1%%+*} FLAGS=()
    case $1 in *+*) part=${1#*+}; FLAGS=("--${part%%=*}" "${part#*=}") ;; esac
}

# How many connections may be open at once, as the server says itself, but no more than four.
connections() {
    local max
    flags "$1"
    max=$("$BIN/serve-$MODEL" --describe "${FLAGS[@]}" | grep -o '"connections_max":[0-9]*' | grep -o '[0-9]*$')
    if [ "$max" -lt 4 ]; then echo "$max"; else echo 4; fi
}

# start VARIANT [FLAG ...]: sets SERVER and ADDRESS.
start() {
    local model=$1
    flags "$model"
    : >"$WORK/server.out"
    "$BIN/serve-$MODEL" --listen 127.0.0.1:0 "${FLAGS[@]}" "${@:2}" >"$WORK/server.out" 2>"$WORK/server.err" &
    SERVER=$!
    for _ in $(seq 200); do
        ADDRESS=$(sed -n 's/^listening \([^ ]*\) .*/\1/p' "$WORK/server.out")
        [ -n "$ADDRESS" ] && return 0
        kill -0 "$SERVER" 2>/dev/null || break
        sleep 0.05
    done
    SERVER=''
    verdict 1 "start ${*:2}" "$model" "$(tail -1 "$WORK/server.err")"
    return 1
}

# Ends the server that is running; it must end by itself, well, and soon.
finish() {
    local status=0
    kill -TERM "$SERVER"
    wait "$SERVER" || status=$?
    SERVER=''
    verdict "$status" "exit after SIGTERM" "$1" "exit code $status: $(tail -1 "$WORK/server.err")"
}

# Whatever ends this script ends its server too.
trap '[ -z "$SERVER" ] || kill -KILL "$SERVER" 2>/dev/null || true' EXIT

summary() {
    echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
    [ "$FAILED" = 0 ]
}
