#!/usr/bin/env bash
# Build, test and install conda-recipe/recipe.yaml, from nothing, against a conda channel made here from wheels:
#
#   bash tests/conda.sh
#
# One line for each check; anything but 0 at the end if one fails. Not part of tests/run.sh: it installs and
# packs all dependencies anew, PyTorch with its CUDA libraries among them: seven minutes of processor time, a
# download of 3 GB and 25 GB of disk for the time being. What it cannot show is that the versions conda-forge
# has fit together: its own channel is not asked.
#
#   PYTHON=python3.12            the Python to make the channel's from; Debian's own does not do
#   VEMSEG_CONDA_CHANNEL=FOLDER  keep the channel there and use it again; remove it to have newer packages
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work="$(mktemp -d "${TMPDIR:-/tmp}/vemseg-conda-XXXXXX")"
trap 'rm -rf "$work"' EXIT
mkdir "$work/tmp"
export TMPDIR="$work/tmp"
export RATTLER_CACHE_DIR="$work/cache" # a fresh one: a package cached under the same name would be tested instead
channel="${VEMSEG_CONDA_CHANNEL:-$work/channel}"

"${PYTHON:-python3}" -m venv "$work/tools"
"$work/tools/bin/python" -m pip install --quiet --disable-pip-version-check py-rattler py-rattler-build pyyaml packaging

if [ ! -e "$channel/complete" ]; then
    "${PYTHON:-python3}" -m venv "$work/wheels"
    "$work/wheels/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip hatchling .
    "$work/wheels/bin/python" -m pip uninstall --quiet --yes vemseg
    "$work/tools/bin/python" tests/conda_checks.py channel "$channel" "$work/wheels"
    rm -rf "$work/wheels"
fi
"$work/tools/bin/python" tests/conda_checks.py recipe "$channel" "$work/checks"
