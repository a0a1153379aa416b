#!/usr/bin/env bash
# The recipe of `make test`: lint, types, then every test. Those that kill workers mostly wait (for a session to time out,
# for a broker to come back), so they run beside the others.
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
# Two runs of about one length, each with a broker of its own.
beside=(tests/chaos tests/integration/test_replay.py tests/integration/test_clean_topic.py)
log=$(mktemp)
.venv/bin/python -m pytest "${beside[@]}" >"$log" 2>&1 &
second=$!
trap 'kill "$second" 2>/dev/null || true; wait "$second" 2>/dev/null || true; rm -f "$log"' EXIT
failed=0
.venv/bin/python -m pytest tests "${beside[@]/#/--ignore=}" || failed=$?
echo "▸ what ran beside it: ${beside[*]}"
wait "$second" || failed=$?
cat "$log"
exit "$failed"
