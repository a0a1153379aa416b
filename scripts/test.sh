#!/usr/bin/env bash
# The recipe of `make test`: lint, types, then every test. Those that kill workers mostly wait (for a session to time out,
# for a broker to come back), so they run beside the others.
set -euo pipefail
cd "$(dirname "$0")/.."

# What only some tests need of the system. As root it is installed; otherwise those tests are reported as skipped.
wanted=()
command -v chromium >/dev/null || wanted+=(chromium)
command -v kcat >/dev/null || wanted+=(kcat)
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || wanted+=(postgresql)
if [ "${#wanted[@]}" -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "▸ installing ${wanted[*]} for the tests that need them"
  (apt-get update -qq && apt-get install -y -qq --no-install-recommends "${wanted[@]}") >/dev/null 2>&1 \
    || echo "${wanted[*]} could not be installed: their tests will be skipped." >&2
fi
make lint
make types
# Two runs of about one length, each with a broker of its own.
beside=(tests/chaos tests/browser)
for name in replay clean_topic captured_tables cdc_capture cdc_inspection gateway; do beside+=("tests/integration/test_$name.py"); done
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
