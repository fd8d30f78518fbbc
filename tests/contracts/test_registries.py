"""What holds for every registry and everything in it; each room's own contract stands beside this file."""

from __future__ import annotations

import inspect

import pytest

from bids_brainlm.errors import ConfigError
from bids_brainlm.registry import REGISTRIES, Registry

each = pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)


@each
def test_something_is_built_in(registry: Registry) -> None:
    assert registry.names()


@each
def test_everything_can_be_used_and_says_what_it_is(registry: Registry) -> None:
    for name in registry.names():
        thing = registry.get(name)
        # An estimator that is tuned over runs is an object with two methods.
        tuned = registry.kind == "estimators" and callable(getattr(thing, "tune", None)) and callable(thing.estimate)
        assert callable(thing) or tuned, name
        documented = tuned or inspect.isroutine(thing) or inspect.isclass(thing)
        said = inspect.getdoc(thing) if documented else getattr(thing, "reference", "")
        assert said, f"{registry.kind} {name!r} has neither a docstring nor a reference"


@each
def test_a_mistyped_name_is_answered_with_the_right_one(registry: Registry) -> None:
    for name in registry.names():
        with pytest.raises(ConfigError) as caught:
            registry.get(f"{name}_")
        assert repr(name) in str(caught.value)
