#!/usr/bin/env bash
# Install the package into .venv, then lint, check types and test. Arguments go to pytest:
#   bash tests/run.sh                  everything
#   bash tests/run.sh -m "not slow"    what takes seconds
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    for python in python3 python3.14 python3.13 python3.12 python3.11 ""; do
        [ -n "$python" ] || { echo "tests/run.sh: no Python 3.11 or later on the PATH" >&2; exit 1; }
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
    done
    "$python" -m venv --clear .venv
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy

# One process for each core with one thread each; the tests of a file stay together, and files come in the
# order that tests/conftest.py gives them, so that long ones are not the last.
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" .venv/bin/python -m pytest -n logical --dist loadfile --no-loadscope-reorder "$@"
