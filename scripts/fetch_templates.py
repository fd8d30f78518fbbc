#!/usr/bin/env python3
"""Fetch the templates that the default recipe needs into TEMPLATEFLOW_HOME, and read them back from there.

The recipe says which atlas and `load_atlas` asks TemplateFlow for it, so the image holds what a run will ask for. The spheres
that bring fMRIPrep's CIFTI series (91k) to fsaverage are fetched too.
Usage: TEMPLATEFLOW_HOME=FOLDER python scripts/fetch_templates.py
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bids_brainlm.config import load
from bids_brainlm.core.types import DENSITIES
from bids_brainlm.errors import BrainLMError
from bids_brainlm.io.atlases import load_atlas
from bids_brainlm.io.cifti import fslr_spheres

RECIPE = "cortext"
"""What the command takes when no recipe is named."""


def main(home: Path) -> None:
    config = load(RECIPE)
    spec, n = config.parcels.atlas, max(DENSITIES)
    # The second time offline: what was fetched is whole, and found without a network.
    for offline in (False, True):
        atlas = load_atlas(spec, space=config.input.space, n_left=n, n_vertices=2 * n, offline=offline)
        spheres = fslr_spheres("32k", offline)
    files = sorted(home.rglob(f"*_atlas-{atlas.name}_*_dseg.label.gii"))
    filled = [*(path for path in files if path.stat().st_size), *spheres]
    print(f"{spec}: {len(atlas.names)} parcels, {len(filled)} file(s) in {home}")
    for path in filled:
        print(f"{path.stat().st_size:>9} {path.relative_to(home)}")


if __name__ == "__main__":
    if not os.environ.get("TEMPLATEFLOW_HOME"):
        sys.exit("set TEMPLATEFLOW_HOME to the folder that shall hold the templates")
    try:
        main(Path(os.environ["TEMPLATEFLOW_HOME"]))
    except BrainLMError as error:
        print(f"fetch_templates: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
