"""Every setting, once: its name, default, meaning and flag.

The tree of frozen dataclasses in `tree` is the single source for the TOML files (presets, ``--config-file``), for the command
line options, for ``--set section.name=value`` and for the reference page. Order: preset < file < flags < ``--set``.
Nothing is checked late: `load` builds the whole tree and refuses unknown names (naming the near ones) and wrong types.

>>> config = load(overrides={"split.folds": "4", "split.scheme": "kfold"})
>>> config.split.folds
4
>>> load(overrides={"split.fold": "4"})
Traceback (most recent call last):
...
bids_brainlm.errors.ConfigError: no setting 'split.fold'; did you mean 'split.folds'?
"""

from bids_brainlm.config.sources import PRESETS, load, presets
from bids_brainlm.config.tree import (
    GROUPS,
    SECTIONS,
    Config,
    Decode,
    Estimate,
    Evaluate,
    Input,
    Model,
    Outcome,
    Parcels,
    Phase,
    Request,
    Run,
    Splits,
    Text,
    setting,
    settings,
)
from bids_brainlm.config.validate import as_tree, bearing, build, to_toml

__all__ = [
    "GROUPS",
    "PRESETS",
    "SECTIONS",
    "Config",
    "Decode",
    "Estimate",
    "Evaluate",
    "Input",
    "Model",
    "Outcome",
    "Parcels",
    "Phase",
    "Request",
    "Run",
    "Splits",
    "Text",
    "as_tree",
    "bearing",
    "build",
    "load",
    "presets",
    "setting",
    "settings",
    "to_toml",
]
