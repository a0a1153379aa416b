#!/usr/bin/env bash
# Prepare the virtual environment from uv.lock, and the Kafka jars from pom.xml. Safe to run twice at once.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
shift

# A name on the PATH proves little: a version manager's shim may stand there for a Python that is not installed.
python=
for candidate in "${@:-}" python3 python3.13 python3.12 python3.11; do
  if [ -n "$candidate" ] && "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "FreshData needs Python 3.11, 3.12 or 3.13 with venv: install one, or name it with make PYTHON=/path/to/python3." >&2
  exit 1
fi
mkdir -p .freshdata
exec 9>.freshdata/setup.lock
# Not everywhere; without it two setups at once are at their own risk.
if command -v flock >/dev/null; then flock 9; fi
# Another setup may have finished while this one waited.
if [ -f "$venv/.complete" ] && [ ! uv.lock -nt "$venv/.complete" ] && [ ! pyproject.toml -nt "$venv/.complete" ] \
  && [ ! pom.xml -nt "$venv/.complete" ]; then
  exit 0
fi

step() { printf '\033[36m▸\033[0m %s\n' "$*"; }
step "Python environment in $venv ($("$python" --version 2>&1), packages from uv.lock)"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
uv_version=$(sed -n '/^name = "uv"$/{n;s/version = "\(.*\)"/\1/p}' uv.lock)
[ "$("$venv/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" = "$uv_version" ] \
  || "$venv/bin/python" -m pip install --quiet "uv==$uv_version"
requirements=$(mktemp)
trap 'rm -f "$requirements"' EXIT
# The lock holds versions and hashes, no index address: any index that serves these very files will do.
"$venv/bin/uv" export --frozen --quiet --no-emit-project --all-groups --output-file "$requirements" >/dev/null
export VIRTUAL_ENV=$PWD/$venv UV_COMPILE_BYTECODE=1
# Progress for whoever watches, silence in a log.
[ -t 2 ] && quiet=() || quiet=(--quiet)
"$venv/bin/uv" pip sync --require-hashes "${quiet[@]}" "$requirements"
"$venv/bin/uv" pip install --quiet --no-deps --no-build-isolation --editable .
# A process may not write byte code (PYTHONDONTWRITEBYTECODE, a read-only checkout); each of Dagster's runs is one more.
"$venv/bin/python" -m compileall -q freshdata freshdata_assets serving_api stream_workers
step "Kafka jars from pom.xml"
"$venv/bin/python" -m freshdata.services.prerequisites
touch "$venv/.complete"
