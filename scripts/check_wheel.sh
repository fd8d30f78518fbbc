#!/bin/sh
# Build the wheel, install it into an empty environment, run it from /. Usage: scripts/check_wheel.sh FOLDER
set -eu
rm -rf "$1"
mkdir -p "$1"
here=$PWD
folder=$(cd "$1" && pwd)
python=${BRAINLM_BIN:+$BRAINLM_BIN/}python
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps -w "$folder" "$here" </dev/null
"$python" -m venv "$folder/venv"
bin=$folder/venv/bin
"$bin/python" -m pip install --quiet --disable-pip-version-check -c "$here/constraints.txt" "$folder"/*.whl </dev/null

cd /
"$bin/bids_brainlm" --version
"$bin/bids_brainlm" --help >/dev/null
"$bin/brainlm" --version
mkdir "$folder/bids"
# The settings are printed before it is found that nobody is there.
"$bin/bids_brainlm" "$folder/bids" "$folder/out" participant -w "$folder/work" --dry-run >"$folder/plan.toml" || [ $? -eq 66 ]
grep -q "^atlas = .*# recipe cortext" "$folder/plan.toml"
"$bin/python" - "$here" <<'PYTHON'
"""The installed package is not the checkout, and holds every file of data that the checkout has."""
import sys
from pathlib import Path

import bids_brainlm
from bids_brainlm.config import load, presets
from bids_brainlm.registry import REGISTRIES

installed, checkout = Path(bids_brainlm.__file__).parent, Path(sys.argv[1]) / "bids_brainlm"
if installed.is_relative_to(checkout):
    sys.exit(f"{installed} is the checkout")
files = {path.relative_to(checkout) for path in (checkout / "data").rglob("*") if path.is_file()} | {Path("py.typed")}
missing = [str(path) for path in sorted(files) if not (installed / path).is_file()]
if missing:
    sys.exit(f"the wheel lacks {', '.join(missing)}")
for name in presets():
    load(name)
for registry in REGISTRIES:
    registry.names()
print(f"wheel: {len(files)} data files, presets {', '.join(presets())}")
PYTHON
