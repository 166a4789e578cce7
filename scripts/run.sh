#!/bin/sh
# Runs one of the scripts under the project's own Node 24, installing the npm packages first if they are missing.
# Usage: sh scripts/run.sh scripts/NAME.ts [ARGUMENT ...]
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
node="$here/node_modules/.bin/node"
stamp="$here/node_modules/.package-lock.json"
if [ ! -x "$node" ] || [ ! -f "$stamp" ] || [ "$here/package-lock.json" -nt "$stamp" ]; then
  echo "installing npm packages ..." >&2
  (cd "$here" && npm ci --no-audit --no-fund --loglevel=error >&2)
  touch "$stamp"
fi
cd "$here"
# Node keeps what it has compiled: the tests start hundreds of daemons.
export NODE_COMPILE_CACHE="${NODE_COMPILE_CACHE:-$here/build/compile-cache}"
PATH="$here/node_modules/.bin:$PATH" exec "$node" --disable-warning=ExperimentalWarning "$@"
