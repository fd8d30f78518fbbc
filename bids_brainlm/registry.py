"""Names for what can be swapped: tokenizers, metrics, estimators, objectives, interventions, prompt styles, story decoders.

A *registry* maps a name to an object. It finds the object, in this order, among what ``register`` added, under an entry
point ``bids_brainlm.<kind>`` of any installed package, and as ``"module:attribute"``. The module that defines the built-in
objects (its *home*) is imported at the first look-up, so that a command line that never trains never imports torch.

>>> colours = Registry("colours")
>>> @colours.register("red")
... def red():
...     return "#f00"
>>> colours.get("red")()
'#f00'
>>> colours.get("rad")
Traceback (most recent call last):
...
bids_brainlm.errors.ConfigError: no 'rad' among the colours; did you mean 'red'? known: red
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, TypeVar

from bids_brainlm.errors import ConfigError

T = TypeVar("T")

_FAILURES = (ImportError, AttributeError, SyntaxError, NameError, TypeError, ValueError, LookupError, OSError, RuntimeError)
"""What code of others may raise when it is imported."""


class Registry:
    """Name -> object, for one kind of thing.

    Parameters
    ----------
    kind : str
        Plural noun; entry points are read from the group ``bids_brainlm.<kind>``.
    home : str
        Module whose import registers the built-in objects.
    """

    def __init__(self, kind: str, home: str = "") -> None:
        self.kind, self.home = kind, home
        self._objects: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds an object; a name can be taken once."""

        def add(thing: T) -> T:
            if self._objects.get(name, thing) is not thing:
                raise ConfigError(f"two {self.kind} are called {name!r}; give one of them another name")
            self._objects[name] = thing
            return thing

        return add

    def names(self) -> list[str]:
        """Every name that ``get`` would find, sorted."""
        self._load_home()
        return sorted({*self._objects, *(point.name for point in entry_points(group=f"bids_brainlm.{self.kind}"))})

    def get(self, name: str) -> Any:
        """Return the object behind a name.

        Raises
        ------
        ConfigError
            When nothing has that name (the near ones are named) or when its module does not import.
        """
        self._load_home()
        if name in self._objects:
            return self._objects[name]
        for point in entry_points(group=f"bids_brainlm.{self.kind}"):
            if point.name == name:
                return self._plugin(point.load, f"entry point {point.value} ({point.group})")
        if ":" in name:
            module, _, attribute = name.partition(":")
            return self._plugin(lambda: getattr(importlib.import_module(module), attribute), f"{name!r}")
        near = difflib.get_close_matches(name, self.names(), n=3)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ";"
        raise ConfigError(f"no {name!r} among the {self.kind}{hint} known: {', '.join(self.names())}")

    def _load_home(self) -> None:
        if self.home:
            importlib.import_module(self.home)

    def _plugin(self, load: Callable[[], Any], where: str) -> Any:
        try:
            return load()
        except _FAILURES as error:
            why = f"{type(error).__name__}: {error}"
            remedy = "install what it needs, or correct it; -v -v shows the traceback"
            raise ConfigError(f"the plug-in {where} among the {self.kind} does not load, {why} (remedy: {remedy})") from error


estimators = Registry("estimators", home="bids_brainlm.core.tuned")
interventions = Registry("interventions", home="bids_brainlm.core.surrogates")
prompt_styles = Registry("prompt_styles", home="bids_brainlm.language.render")
tokenizers = Registry("tokenizers", home="bids_brainlm.models.tokenizers")
objectives = Registry("objectives", home="bids_brainlm.training.objectives")
metrics = Registry("metrics", home="bids_brainlm.evaluation.metrics")
story_decoders = Registry("story_decoders", home="bids_brainlm.evaluation.story.decoders")

REGISTRIES = (estimators, interventions, prompt_styles, tokenizers, objectives, metrics, story_decoders)
