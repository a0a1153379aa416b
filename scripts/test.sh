#!/usr/bin/env bash
# The recipe of `make test`: lint, types, then every test in one pytest run, whose closing line counts them all.
set -euo pipefail
cd "$(dirname "$0")/.."

# Only the browser tests need a system package. As root it is installed; otherwise they are reported as skipped.
if ! command -v chromium >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "▸ installing chromium for the browser tests"
  (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium) >/dev/null 2>&1 \
    || echo "chromium could not be installed: the browser tests will be skipped." >&2
fi
make lint
make types
exec .venv/bin/python -m pytest tests
