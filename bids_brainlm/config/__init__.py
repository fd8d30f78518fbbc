"""Every setting, once: its name, default, meaning and flag.

The tree of frozen dataclasses in `tree` is the single source for the TOML files (presets, ``--config-file``), for the command
line options, for ``--set section.name=value`` and for the reference page. Order: preset < file < flags < ``--set``;
`resolve` keeps for each value who had the last word. Nothing is checked late: the whole tree is built before any work, and
unknown names (with the near ones) and wrong types are refused.

>>> config = load(overrides={"split.folds": "4", "split.scheme": "kfold"})
>>> config.split.folds
4
>>> load(overrides={"split.fold": "4"})
Traceback (most recent call last):
...
bids_brainlm.errors.ConfigError: no setting 'split.fold'; did you mean 'split.folds'?
"""

from bids_brainlm.config.call import Outcome, Request, call_of, level_of
from bids_brainlm.config.sources import PRESETS, Resolved, load, presets, resolve
from bids_brainlm.config.tree import (
    GROUPS,
    QUERIES,
    SECTIONS,
    SLOPPY,
    STAGES,
    WORDS,
    Compat,
    Config,
    Decode,
    Estimate,
    Evaluate,
    Input,
    Model,
    Parcels,
    Phase,
    Run,
    Splits,
    Story,
    Text,
    Window,
    setting,
    settings,
)
from bids_brainlm.config.validate import as_tree, bearing, build, to_toml
from bids_brainlm.config.values import gigabytes

__all__ = [
    "GROUPS",
    "PRESETS",
    "QUERIES",
    "SECTIONS",
    "SLOPPY",
    "STAGES",
    "WORDS",
    "Compat",
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
    "Resolved",
    "Run",
    "Splits",
    "Story",
    "Text",
    "Window",
    "as_tree",
    "bearing",
    "build",
    "call_of",
    "gigabytes",
    "level_of",
    "load",
    "presets",
    "resolve",
    "setting",
    "settings",
    "to_toml",
]
