"""Sites and words as they are asked for on a command line.

A site is ``[NAME=]KIND:WHAT``: ``contrast:FACTOR`` (a site for every value) or ``contrast:FACTOR=VALUE``, ``parcels:NAME[,NAME]``
(wildcards), ``map:FILE`` (a site for every map in it), ``vertices:FILE``. Words are ``FACTOR=WORD[|OTHER NAME],WORD ...``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from bids_brainlm.core.types import Ints
from bids_brainlm.errors import ConfigError
from bids_brainlm.evaluation.metrics import Facts
from bids_brainlm.insilico.participant import Participant
from bids_brainlm.insilico.sites import Cut, Site, contrasts, cut_from, from_maps, from_vertices, parcels

KINDS = ("contrast", "parcels", "map", "vertices")
EXPECTED = "expected [NAME=]KIND:WHAT with a KIND among " + ", ".join(KINDS)


def sites_from(
    asked: Sequence[str], participant: Participant, facts: Facts | None, localizer: Ints, cut: Cut, fold: int = 0
) -> tuple[Site, ...]:
    """Sites of some requests.

    Raises
    ------
    ConfigError
        For a request that makes no sense, a contrast without facts, or two sites of one name.
    """
    found = [site for text in asked for site in _sites(text, participant, facts, localizer, cut, fold)]
    names = [site.name for site in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two sites are called {', '.join(twice)}; give them names: NAME=KIND:WHAT")
    return tuple(found)


def _sites(text: str, participant: Participant, facts: Facts | None, localizer: Ints, cut: Cut, fold: int) -> tuple[Site, ...]:
    head, colon, what = text.partition(":")
    name, _, kind = head.rpartition("=")
    if not colon or not what or kind not in KINDS:
        raise ConfigError(f"--site {text!r}; {EXPECTED}")
    if kind == "contrast":
        return _contrasts(name, what, participant, facts, localizer, cut, fold)
    if kind == "parcels":
        return (parcels(name or what, what.split(","), participant),)
    path = Path(what).expanduser()
    if kind == "vertices":
        return (from_vertices(name or path.stem, path, participant),)
    maps = from_maps(path, participant)
    names = {own: own if not name else name if len(maps) == 1 else f"{name}/{own}" for own in maps}
    return tuple(
        cut_from(names[own], values, cut, participant, f"map {own} of {path.name}", fold) for own, values in maps.items()
    )


def _contrasts(
    name: str, what: str, participant: Participant, facts: Facts | None, localizer: Ints, cut: Cut, fold: int
) -> tuple[Site, ...]:
    if facts is None:
        raise ConfigError(f"--site contrast:{what} needs a table of facts; add --facts FILE")
    factor, _, value = what.partition("=")
    sites = contrasts(participant, facts, factor, localizer, cut, fold, value)
    return (dataclasses.replace(sites[0], name=name),) if name and value else sites


def vocabulary_from(asked: Sequence[str], facts: Facts | None) -> dict[str, dict[str, tuple[str, ...]]]:
    """Factor -> word -> its names: what was asked for, else all values of the facts.

    Raises
    ------
    ConfigError
        When there is neither, or a request makes no sense.

    Examples
    --------
    >>> vocabulary_from(["animal=dog|puppy,cat"], None)
    {'animal': {'dog': ('dog', 'puppy'), 'cat': ('cat',)}}
    """
    out: dict[str, dict[str, tuple[str, ...]]] = {}
    for text in asked:
        factor, equals, listed = text.partition("=")
        words = [tuple(name.strip() for name in word.split("|") if name.strip()) for word in listed.split(",")]
        if not equals or not factor or not all(words):
            raise ConfigError(f"--words {text!r}; expected FACTOR=WORD[|OTHER NAME],WORD ...")
        out.setdefault(factor, {}).update({names[0]: names for names in words})
    if not out and facts is None:
        raise ConfigError("no words: add --words FACTOR=WORD,WORD or --facts FILE")
    return out or (facts.vocabulary if facts is not None else {})
