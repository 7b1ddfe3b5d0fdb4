# Autobahn's fuzzing client (PyPI autobahntestsuite): every case but 12.* and 13.* (permessage-deflate,
# which no server here offers). It runs on Python 2.7 only.

# The pins are those of its own repository: its archive comes without them.
AUTOBAHN_PINS="setuptools==44.0.0 txaio==2.1.0 incremental==16.10.1 pyOpenSSL==19.1.0 cryptography==3.3.2
    Twisted==19.10.0 zope.interface==4.6.0 jinja2==2.11.3 markupsafe==1.1.1 Werkzeug==1.0.1 klein==17.10.0
    service_identity==18.1.0 unittest2==1.1.0 six==1.16.0 autobahn[twisted,accelerate]==0.10.9"

# Prints the way to a Python 2.7 that runs, if there is one (pyenv's shim may stand there and not).
python27() {
    local python
    for python in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7*/bin/python2.7 "$(command -v python2.7)"; do
        [ -x "$python" ] && "$python" -c '' 2>/dev/null && echo "$python" && return
    done
}

# Sets the suite up once, under target/; says why it cannot.
autobahn_ready() {
    local python venv=$WORK/autobahn
    [ -x "$venv/bin/wstest" ] && return 0
    python=$(python27) || true
    [ -n "$python" ] || { echo "there is no Python 2.7 (pyenv install 2.7.18)"; return 1; }
    {
        "$python" -m pip install -q --target "$WORK/virtualenv" 'virtualenv<20.22' \
            && PYTHONPATH=$WORK/virtualenv "$python" -m virtualenv -q "$venv" \
            && "$venv/bin/pip" install -q $AUTOBAHN_PINS \
            && "$venv/bin/pip" install -q --no-deps autobahntestsuite==25.10.1
    } >"$WORK/autobahn.log" 2>&1 || {
        rm -rf "$venv"
        echo "it could not be installed (see $WORK/autobahn.log)"
        return 1
    }
}

with_autobahn() {
    local model=$1 why
    if ! why=$(autobahn_ready); then
        skip "Autobahn" "$model" "$why"
        return 0
    fi
    # Cases 9.* echo messages of 16 MiB.
    start "$model" --message-bytes-max 16777216 || return 0
    cat >"$WORK/spec-$model.json" <<SPEC
{"outdir": "$WORK/reports/$model", "cases": ["*"], "exclude-cases": ["12.*", "13.*"], "exclude-agent-cases": {},
 "servers": [{"agent": "$model", "url": "ws://$ADDRESS/ws/echo"}]}
SPEC
    rm -rf "$WORK/reports/$model"
    timeout 300 "$WORK/autobahn/bin/wstest" -m fuzzingclient -s "$WORK/spec-$model.json" >"$WORK/autobahn-$model.log" 2>&1 || true
    finish "$model"
    if why=$("$WORK/autobahn/bin/python" "$HERE/autobahn.py" "$WORK/reports/$model/index.json" "$HERE/autobahn-explained.txt"); then
        verdict 0 "Autobahn: $why" "$model"
    else
        verdict 1 "Autobahn" "$model" "$why"
    fi
}
