"""Every parcel in words: what the decoder says more often when the parcel is driven, and whether responses know of it.

Two ways lead from words to a parcel, and both use language alone.

- *Driven*: the pattern that is 1 on all vertices of the parcel is added to held-out responses, and taken from them; how much
  likelier does each of some training texts become? The effect of a word on that, against its effects when *reference* parcels are
  driven, names the parcel.
- *Encoding*: from training texts to measured responses, by ridge regression. The fit tells whether the parcel answers to texts at
  all (`bids_brainlm.insilico.encoding`); the effect of a word on the parcel's mean response is the second opinion on its name.

A parcel is *named* where the fit is significant over all parcels (q at most .05). The reference are those without any (p above
.05): a decoder finds something in every parcel, and what it finds there is noise. Names are effects on the model: what the
decoder has learned to read from a place.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.core.types import Bools, Examples, Floats, Ints, Parcellation, Prompt
from bids_brainlm.errors import InputError
from bids_brainlm.evaluation.multiplicity import false_discovery_q
from bids_brainlm.evaluation.statistics import ALPHA
from bids_brainlm.insilico import encoding, naming
from bids_brainlm.insilico.drive import driven
from bids_brainlm.insilico.participant import Participant
from bids_brainlm.language.limits import shortened
from bids_brainlm.models.fusion import Features
from bids_brainlm.stages.decoder import limits_of
from bids_brainlm.stages.facts import load_facts

Array = NDArray[np.float64]

PARCEL_COLUMNS = {
    "parcel": "Parcel of the atlas.",
    "n_vertices": "Vertices or voxels of it that the decoder uses.",
    "name": "The best word, where fit_q is at most .05; n/a elsewhere, where responses are not known to say anything of texts.",
    "words": "All words whose q_value is at most .05, the best one first, separated by commas.",
    "best_word": "Word that stands out most when the parcel is driven, whatever the fit.",
    "factor": "Factor of the facts that it is a value of; n/a without facts.",
    "difference": "By how many nats driving the parcel by 1 SD raises the log-probability of a text with that word, relative to "
    "the mean over reference parcels.",
    "standing": "The same in standard deviations over the reference parcels.",
    "p_value": "How often any word stands as high in a reference parcel; n/a with fewer than 10 of them.",
    "q_value": "False discovery rate (Benjamini-Hochberg) over the words of all parcels with a name.",
    "stability": "Share of bootstrap samples of base trials and texts in which that word is the best one.",
    "fit_r": "Correlation, over trials and vertices, of held-out training responses with what an encoding model predicts.",
    "fit_p": "That it is above 0, by exchanges of responses within runs.",
    "fit_q": "False discovery rate of fit_p over parcels.",
    "encoding_word": "Word that raises the mean response of the parcel most, relative to reference parcels.",
    "encoding_stability": "Share of bootstrap samples of groups of training trials in which that word is the best one.",
    "agreement": "Spearman correlation over words of what driving the parcel raises and of what raises its response.",
    "same_word": "Whether best_word is encoding_word.",
}
"""Columns of the table of parcels, in order."""

SITES = 32
"""Parcels whose patterns are in memory at a time."""


@dataclass(frozen=True)
class Settings:
    """How parcels are described.

    Parameters
    ----------
    dose : float
        How far parcels are driven, both ways, in standard deviations of each vertex.
    n_trials : int
        Held-out trials that are driven.
    n_texts : int
        Training texts whose log-probability is measured.
    least_uses : int
        Fewest training examples that use a word.
    n_bootstrap, n_permutations : int
    seed : int
    fold : int
    embeddings : str
        Folder of a sentence encoder; bags of words without one.
    """

    dose: float = 1.0
    n_trials: int = 10
    n_texts: int = 96
    least_uses: int = 10
    n_bootstrap: int = 200
    n_permutations: int = 5000
    seed: int = 0
    fold: int = 0
    embeddings: str = ""


@dataclass(frozen=True, eq=False)
class Description:
    """Names of all parcels.

    Parameters
    ----------
    table : DataFrame
        One row a parcel, columns `PARCEL_COLUMNS`.
    vocabulary : naming.Vocabulary
        W words.
    difference : (P, W) float64
        What driving each parcel by one dose does to the log-probability of texts with each word, in nats.
    driven, encoding : (P, W) float64
        Standing of each word.
    atlas : Parcellation
    """

    table: pd.DataFrame
    vocabulary: naming.Vocabulary
    difference: Array
    driven: Array
    encoding: Array
    atlas: Parcellation

    @property
    def named(self) -> Bools:
        """(P,) bool, whether a parcel has a name."""
        return np.asarray(self.table["name"].notna(), dtype=np.bool_)

    def maps(self) -> dict[str, Floats]:
        """Name -> (V,) float32 of figures of the table; ``word`` is the number of the name among the words, 0 without one."""
        number = np.where(self.named, 1 + self.driven.argmax(axis=1), 0)
        figures = {name: self.table[name].to_numpy(np.float64) for name in ("difference", "fit_r", "agreement", "stability")}
        values = {"word": number.astype(np.float64), **figures}
        return {name: np.concatenate([[np.nan], of])[self.atlas.labels].astype(np.float32) for name, of in values.items()}


def describe(participant: Participant, settings: Settings | None = None) -> Description:
    """Describe every parcel of a trained participant in words.

    Raises
    ------
    InputError
        When training texts have fewer than two words to name places by, or too few groups for an encoding model.
    """
    given, n_folds = settings or Settings(), len(participant.models)
    if given.fold >= n_folds:
        raise InputError(f"no decoder of fold {given.fold}", participant.models[0].parent, expected=f"a fold below {n_folds}")
    split, path = participant.folds[given.fold], participant.models[given.fold]
    training = split.examples.take(split.train)
    facts = load_facts(participant.request)
    try:
        vocabulary = naming.vocabulary_of(training.references, None if facts is None else facts.vocabulary, given.least_uses)
        measured, fit = _encoded(participant, training, vocabulary, given)
    except ValueError as error:
        raise InputError(str(error), path, expected="training texts that differ in words") from error
    reference = ~(fit.p_value <= ALPHA)
    said = _driven(participant, training, vocabulary, given)
    sides = [_Side.of(side, reference, given) for side in (said, measured)]
    return _description(participant, vocabulary, sides, fit, given)


@dataclass(frozen=True, eq=False)
class _Values:
    """What effects of words are computed from: uses (m, W), values (n, m, S) of n repetitions, groups of both."""

    uses: Array
    values: Array
    repetitions: NDArray[np.str_]
    groups: NDArray[np.str_]
    norm: Array

    def effects(self, of_repetitions: Array, of_texts: Array) -> Array:
        mean = np.tensordot(of_repetitions / of_repetitions.sum(), self.values, axes=1)
        return naming.effects(self.uses, mean, of_texts)


@dataclass(frozen=True, eq=False)
class _Side:
    """Effects (S, W) of words by one of both ways, their standings, and stability (S,) of the best word."""

    effects: Array
    standing: Array
    stability: Array

    @classmethod
    def of(cls, given: _Values, reference: Bools, settings: Settings) -> _Side:
        found = given.effects(np.ones(len(given.values)), np.ones(len(given.uses)))
        high = naming.standing(found / given.norm[:, None], reference)
        of_repetitions = naming.draws(given.repetitions, settings.n_bootstrap, settings.seed)
        of_texts = naming.draws(given.groups, settings.n_bootstrap, settings.seed + 1)
        samples = (given.effects(*pair) for pair in zip(of_repetitions, of_texts, strict=True))
        stable = naming.stability(
            high.argmax(axis=1), (naming.standing(sample / given.norm[:, None], reference) for sample in samples)
        )
        return cls(found, high, stable)


def _encoded(
    participant: Participant, training: Examples, vocabulary: naming.Vocabulary, settings: Settings
) -> tuple[_Values, encoding.Fit]:
    """Responses of parcels to training trials, and how well texts predict them."""
    from bids_brainlm.evaluation.readout import sampled  # scikit-learn takes 0.7 s

    examples = training.take(sampled(np.arange(len(training)), settings.seed))
    features = _features(participant, settings.fold)
    vectors = encoding.text_vectors(examples.references, settings.embeddings)
    responses = encoding.parcel_responses(examples, features, participant.atlas)
    parts = encoding.held_out(vectors, responses, examples.group)
    fit = encoding.fit_of(parts, examples, features, participant.atlas, settings.n_permutations, settings.seed)
    uses, spread = vocabulary.shares(examples.references), responses.std(axis=0)
    norm = np.where(spread > 0, spread, 1.0)
    return _Values(uses, responses[None], np.array(["all"]), examples.group, norm), fit


def _features(participant: Participant, fold: int) -> Features:
    features = participant.decoder(fold).model.features
    if not isinstance(features, Features):
        raise InputError("the decoder has features of its own", participant.models[fold], expected="the usual ones")
    return features


def _driven(participant: Participant, training: Examples, vocabulary: naming.Vocabulary, settings: Settings) -> _Values:
    """Half of what the log-probability of texts gains from one dose less to one more, for each parcel and base trial."""
    prompts = _texts(participant, training, vocabulary, settings)
    bases = _bases(participant.test(settings.fold), settings)
    decoder, atlas = participant.decoder(settings.fold), participant.atlas
    doses, style = (-settings.dose, settings.dose), participant.request.config.model.style
    gain = np.empty((len(bases), len(prompts), atlas.n_parcels))
    for start in range(0, atlas.n_parcels, SITES):
        parcels = np.arange(start, min(start + SITES, atlas.n_parcels))
        nll = driven(decoder, bases, atlas.labels == parcels[:, None] + 1, doses, prompts, style)
        gain[:, :, parcels] = np.moveaxis(nll[:, 0] - nll[:, 1], 0, 2) / 2
    used = participant.scale(settings.fold) > 0
    # Noise of a decoder adds up over vertices as noise does.
    norm = np.sqrt(np.maximum(np.bincount(atlas.labels[used], minlength=atlas.n_parcels + 1)[1:], 1).astype(np.float64))
    uses = vocabulary.uses([prompt.answer for prompt in prompts])
    texts = np.array([str(i) for i in range(len(prompts))])
    return _Values(uses, gain, bases.group, texts, norm)


def _texts(participant: Participant, training: Examples, vocabulary: naming.Vocabulary, settings: Settings) -> list[Prompt]:
    """Training texts that use the words about equally often, no longer than those that are trained on."""
    decoder, limits = participant.decoder(settings.fold), limits_of(participant.request.config)
    told = [
        dataclasses.replace(prompt, answer=text)
        for prompt, own in zip(training.prompts, training.references, strict=True)
        for text in own
    ]
    different = list(dict.fromkeys(told))
    texts = naming.chosen(vocabulary.uses([prompt.answer for prompt in different]), settings.n_texts, settings.seed)
    return [shortened(different[i], limits, decoder.text) for i in texts]


def _bases(test: Examples, settings: Settings) -> Examples:
    """Held-out examples drawn at random, of as many groups as there are."""
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(len(test))
    _, first = np.unique(test.group[order], return_index=True)
    firsts = order[np.sort(first)]
    rest = order[~np.isin(order, firsts)]
    return test.take(np.sort(np.concatenate([firsts, rest])[: settings.n_trials]))


def _description(
    participant: Participant, vocabulary: naming.Vocabulary, sides: list[_Side], fit: encoding.Fit, settings: Settings
) -> Description:
    said, measured = sides
    reference, informed = ~(fit.p_value <= ALPHA), fit.q_value <= ALPHA
    p_value, q_value = _tested(said.standing, reference, informed)
    best, other = said.standing.argmax(axis=1), measured.standing.argmax(axis=1)
    every, words = np.arange(len(best)), np.array(vocabulary.words, dtype=object)
    used = np.bincount(participant.atlas.labels[participant.scale(settings.fold) > 0], minlength=len(best) + 1)[1:]
    of = said.effects[reference] if reference.sum() >= naming.FEWEST else said.effects
    difference = (said.effects - of.mean(axis=0)) / settings.dose
    columns = {
        "parcel": participant.atlas.names,
        "n_vertices": used,
        "name": np.where(informed, words[best], None),
        "words": [_listed(words, row, q) for row, q in zip(said.standing, q_value, strict=True)],
        "best_word": words[best],
        "factor": [vocabulary.factors[i] or None for i in best],
        "difference": difference[every, best],
        "standing": said.standing[every, best],
        "p_value": p_value[every, best],
        "q_value": q_value[every, best],
        "stability": said.stability,
        **{f"fit_{name}": getattr(fit, key) for name, key in (("r", "r"), ("p", "p_value"), ("q", "q_value"))},
        "encoding_word": words[other],
        "encoding_stability": measured.stability,
        "agreement": naming.agreement(said.standing, measured.standing),
        "same_word": np.where(best == other, "true", "false"),
    }
    table = pd.DataFrame({name: columns[name] for name in PARCEL_COLUMNS})
    return Description(table, vocabulary, difference, said.standing, measured.standing, participant.atlas)


def _tested(found: Array, reference: Bools, informed: Bools) -> tuple[Array, Array]:
    """(P, W) p of every word, and its false discovery rate over the words of parcels that know of texts; nan elsewhere."""
    p_value, q_value = naming.standing_p(found, reference), np.full(found.shape, np.nan)
    q_value[informed] = false_discovery_q(p_value[informed].ravel()).reshape(-1, found.shape[1])
    return p_value, q_value


def _listed(words: NDArray[np.object_], high: Array, q_value: Array) -> str | None:
    found: Ints = np.flatnonzero(q_value <= ALPHA)
    return ", ".join(words[found[np.argsort(-high[found])]]) or None
