"""A wrong participant whose responses are the own ones costs nothing; whoever saw nothing in common is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bids_brainlm.errors import InputError
from bids_brainlm.insilico.cross import crossed, lent, responses_of
from bids_brainlm.insilico.participant import Participant
from bids_brainlm.io.surfaces import Geometry
from bids_brainlm.stages.decoder import Decoder

from .small import participant

Make = Callable[[], Participant]


@pytest.fixture
def make(decoders: Callable[[str], Decoder], tmp_path: Path) -> Make:
    return lambda: participant(decoders("parcels"), tmp_path)


def alike(made: Participant) -> Participant:
    """Every response to a stimulus is the first one to it, so that it does not matter which of them is lent."""
    examples, data = made.examples, np.array(made.examples.recording.data)
    for name in np.unique(examples.stimulus):
        same = np.flatnonzero(examples.stimulus == name)
        data[same] = data[same[0]]
    return with_examples(made, recording=dataclasses.replace(examples.recording, data=data))


def with_examples(made: Participant, **changes: object) -> Participant:
    examples = dataclasses.replace(made.examples, **changes)
    made.__dict__.update(folds=tuple(dataclasses.replace(fold, examples=examples) for fold in made.folds), examples=examples)
    return made


def test_the_own_responses_cost_nothing_and_those_to_other_stimuli_are_told(make: Make) -> None:
    own, other = alike(make()), alike(make())
    table = crossed(own, other).set_index("condition")
    assert table.loc["wrong_participant", "difference"] == pytest.approx(0, abs=1e-6)
    assert abs(table.loc["wrong_participant_permuted", "difference"]) > 1e-4
    assert (table["n"] == 16).all()
    assert table["weights"].nunique() == 1


def test_lent_responses_are_those_to_the_same_stimulus(make: Make) -> None:
    own, other = make(), make()
    other.examples.recording.data[:] += 100
    test = own.test()
    which = responses_of(test, other.examples, 0)
    assert list(other.examples.stimulus[which]) == list(test.stimulus)
    given = lent(test, other.examples, which)
    np.testing.assert_array_equal(given.gather(np.arange(len(test)))[:, 0], other.examples.recording.data[which])
    assert given.prompts == test.prompts


def test_only_stimuli_that_both_saw_are_scored(make: Make) -> None:
    own, other = alike(make()), alike(make())
    names = np.where(other.examples.stimulus == "s4", "s9", other.examples.stimulus)
    assert (crossed(own, with_examples(other, stimulus=names, group=names))["n"] == 12).all()


@pytest.mark.parametrize("what", ["stimuli", "space"])
def test_who_has_nothing_in_common_is_refused(make: Make, what: str) -> None:
    own, other = make(), make()
    if what == "stimuli":
        names = np.array([f"other-{name}" for name in other.examples.stimulus])
        with_examples(other, stimulus=names, group=names)
    else:
        other.__dict__["trials"] = dataclasses.replace(other.trials, geometry=Geometry("T1w", "", 12, 12))
    with pytest.raises(InputError, match="was shown to" if what == "stimuli" else "another space"):
        crossed(own, other)
