# A browser (Debian's chromium, headless): a page over HTTP/2 and TLS, and WebSockets from a page of
# the server's own origin and from one of another origin.

# Prints the page as it is when it has loaded. The page holds its load event back until its
# WebSockets have answered, by an image that the server delays.
visit() {
    timeout 60 "$CHROMIUM" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --ignore-certificate-errors \
        --user-data-dir="$(mktemp -d "$WORK/browser.XXXX")" --dump-dom "$1" 2>"$WORK/browser.err" || true
}

# browser_check PAGE_ADDRESS SOCKET_ADDRESS TEXT CHECK MODEL: TEXT must stand in the page.
browser_check() {
    visit "https://$1/files/page.html?$2" >"$WORK/page.html"
    grep -q "$3" "$WORK/page.html"
    verdict $? "$4" "$5" "the page says: $(grep -o '<output>[^<]*' "$WORK/page.html" | tr '\n' ' ' || true)"
}

with_browser() {
    local model=$1 clients=$2 page server
    CHROMIUM=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
    [ -n "$CHROMIUM" ] || { skip "browser" "$model" "chromium is not installed"; return 0; }
    [ "$clients" -gt 1 ] || { skip "browser" "$model" "a browser opens several connections at once, this model serves one"; return 0; }
    cp "$HERE/page.html" "$WORK/root/page.html"
    start "$model" --tls --root "$WORK/root" || return 0
    page=$ADDRESS
    browser_check "$page" "$page" 'protocol=h2' "browser: the page came over HTTP/2" "$model"
    browser_check "$page" "$page" 'socket=echoed' "browser: WebSocket of the same origin" "$model"
    browser_check "localhost:${page##*:}" "$page" 'socket=refused' "browser: WebSocket of another origin is refused" "$model"
    finish "$model"
    start "$model" --tls --root "$WORK/root" --allow-origin '*' || return 0
    browser_check "localhost:${ADDRESS##*:}" "$ADDRESS" 'socket=echoed' "browser: another origin, with --allow-origin" "$model"
    finish "$model"
    rm -rf "$WORK"/browser.????
}
