"""Every parcel in words: what the decoder says more often when the parcel is driven, and whether responses know of texts.

Two ways lead from words to a parcel, and both use language alone.

- *Driven*: a pattern of the parcel is added to held-out responses, and taken from them; how much likelier does each of some
  training texts become? The effect of a word on that, against its effects when *reference* parcels are driven, names the parcel.
- *Encoding*: from training texts to measured responses, by ridge regression. The fit tells whether the parcel answers to texts at
  all (`bids_brainlm.insilico.encoding`). What words do to held-out responses along the pattern is the second opinion on the name.

The *pattern* is ``main``, along which training responses of the parcel differ most from word to word (`encoding.main_pattern`),
in the direction that names the parcel; or ``uniform``, 1 on all its vertices. A parcel with a place for each of several words
cannot be named by the latter: driven as a whole, it says all of them at once.

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
from bids_brainlm.insilico.captions import say
from bids_brainlm.insilico.drive import driven
from bids_brainlm.insilico.participant import Participant
from bids_brainlm.language.limits import shortened
from bids_brainlm.models.fusion import Features
from bids_brainlm.stages.decode import generation_of
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
    "difference": "By how many nats driving the parcel by its pattern raises the log-probability of a text with that word, "
    "relative to the mean over reference parcels.",
    "standing": "The same in standard deviations over the reference parcels.",
    "p_value": "How often any word stands as high in a reference parcel; n/a with fewer than 10 of them.",
    "q_value": "False discovery rate (Benjamini-Hochberg) over the words of all parcels with a name.",
    "stability": "Share of bootstrap samples of base trials and texts in which that word is the best one.",
    "said": "By how much more often texts generated from test trials have that word when the pattern is added than when it is "
    "taken away: difference of two shares; n/a without a name.",
    "fit_r": "Correlation, over trials and vertices, of held-out training responses with what an encoding model predicts.",
    "fit_p": "That it is above 0, by exchanges of responses within runs.",
    "fit_q": "False discovery rate of fit_p over parcels.",
    "measured_word": "Word whose texts raise test responses along the pattern most, relative to reference parcels.",
    "measured_stability": "Share of bootstrap samples of groups of test trials in which that word is the best one.",
    "agreement": "Spearman correlation over words of what driving the parcel raises and of what raises its test responses.",
    "same_word": "Whether best_word is measured_word.",
}
"""Columns of the table of parcels, in order."""

SITES = 32
"""Parcels whose patterns are in memory at a time."""


@dataclass(frozen=True)
class Settings:
    """How parcels are described.

    Parameters
    ----------
    pattern : {"main", "uniform"}
    dose : float
        How far parcels are driven, both ways, in standard deviations of each vertex (root mean square over the parcel).
    n_trials : int
        Held-out trials that are driven.
    n_texts : int
        Training texts whose log-probability is measured.
    least_uses : int
        Fewest training examples that use a word.
    n_captions : int
        Held-out trials that texts are generated from, in parcels with a name; 0 for none.
    n_bootstrap, n_permutations : int
    seed : int
    fold : int
    embeddings : str
        Folder of a sentence encoder; bags of words without one.
    """

    pattern: str = "main"
    dose: float = 1.0
    n_trials: int = 10
    n_texts: int = 96
    least_uses: int = 10
    n_captions: int = 4
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
        What driving each parcel by its pattern does to the log-probability of texts with each word, in nats.
    driven, measured : (P, W) float64
        Standing of each word.
    pattern : (V,) float32
        Of all parcels, in standard deviations.
    atlas : Parcellation
    """

    table: pd.DataFrame
    vocabulary: naming.Vocabulary
    difference: Array
    driven: Array
    measured: Array
    pattern: Floats
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
        on_vertices = {name: np.concatenate([[np.nan], of])[self.atlas.labels] for name, of in values.items()}
        return {name: of.astype(np.float32) for name, of in (on_vertices | {"pattern": self.pattern}).items()}


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
    training, atlas = split.examples.take(split.train), participant.atlas
    facts, features = load_facts(participant.request), _features(participant, given.fold)
    try:
        vocabulary = naming.vocabulary_of(training.references, None if facts is None else facts.vocabulary, given.least_uses)
        fit, pattern = _encoded(training, features, atlas, vocabulary, given)
    except ValueError as error:
        raise InputError(str(error), path, expected="training texts that differ in words") from error
    said = _driven(participant, training, vocabulary, pattern, given)
    measured = _measured(participant.test(given.fold), features, atlas, vocabulary, pattern)
    found = _description(participant, vocabulary, (said, measured), fit, pattern, given)
    table = found.table.assign(said=_said(participant, found, given))
    return dataclasses.replace(found, table=table[list(PARCEL_COLUMNS)])


@dataclass(frozen=True, eq=False)
class _Values:
    """What effects of words are computed from, by one of both ways.

    Uses (m, W) of texts, values (n, m, P) of n repetitions, groups of repetitions and of texts, and size of noise (P,).
    """

    uses: Array
    values: Array
    repetitions: NDArray[np.str_]
    groups: NDArray[np.str_]
    norm: Array

    def effects(self, of_repetitions: Array | None = None, of_texts: Array | None = None) -> Array:
        weights = np.ones(len(self.values)) if of_repetitions is None else of_repetitions
        return naming.effects(self.uses, np.tensordot(weights / weights.sum(), self.values, axes=1), of_texts)

    def standing(self, reference: Bools, found: Array | None = None) -> Array:
        return naming.standing((self.effects() if found is None else found) / self.norm[:, None], reference)

    def stability(self, best: Ints, sign: Array, reference: Bools, settings: Settings) -> Array:
        of_repetitions = naming.draws(self.repetitions, settings.n_bootstrap, settings.seed)
        of_texts = naming.draws(self.groups, settings.n_bootstrap, settings.seed + 1)
        samples = (self.effects(*pair) for pair in zip(of_repetitions, of_texts, strict=True))
        return naming.stability(best, (sign[:, None] * self.standing(reference, sample) for sample in samples))


def _encoded(
    training: Examples, features: Features, atlas: Parcellation, vocabulary: naming.Vocabulary, settings: Settings
) -> tuple[encoding.Fit, Floats]:
    """How well texts predict responses of parcels, and the pattern (V,) of all of them."""
    from bids_brainlm.evaluation.readout import sampled  # scikit-learn takes 0.7 s

    examples = training.take(sampled(np.arange(len(training)), settings.seed))
    vectors = encoding.text_vectors(examples.references, settings.embeddings)
    responses = encoding.parcel_responses(examples, features, atlas)
    parts = encoding.held_out(vectors, responses, examples.group)
    fit = encoding.fit_of(parts, examples, features, atlas, settings.n_permutations, settings.seed)
    if settings.pattern == "uniform":
        return fit, (atlas.labels > 0).astype(np.float32)
    return fit, encoding.main_pattern(examples, features, atlas, vocabulary.shares(examples.references))


def _measured(test: Examples, features: Features, atlas: Parcellation, vocabulary: naming.Vocabulary, pattern: Floats) -> _Values:
    """Responses of parcels to test trials, along the pattern."""
    responses = encoding.parcel_responses(test, features, atlas, pattern)
    spread = responses.std(axis=0)
    norm = np.where(spread > 0, spread, 1.0)
    return _Values(vocabulary.shares(test.references), responses[None], np.array(["all"]), test.group, norm)


def _features(participant: Participant, fold: int) -> Features:
    try:
        return participant.decoder(fold).model.of_vertices
    except ValueError as error:
        raise InputError("the decoder has features of its own", participant.models[fold], expected="the usual ones") from error


def _driven(
    participant: Participant, training: Examples, vocabulary: naming.Vocabulary, pattern: Floats, settings: Settings
) -> _Values:
    """Half of what the log-probability of texts gains from one dose less to one more, for each parcel and base trial."""
    prompts = _texts(participant, training, vocabulary, settings)
    bases = _bases(participant.test(settings.fold), settings)
    decoder, atlas = participant.decoder(settings.fold), participant.atlas
    doses, style = (-settings.dose, settings.dose), participant.request.config.model.style
    gain = np.empty((len(bases), len(prompts), atlas.n_parcels))
    for start in range(0, atlas.n_parcels, SITES):
        parcels = np.arange(start, min(start + SITES, atlas.n_parcels))
        nll = driven(decoder, bases, pattern * (atlas.labels == parcels[:, None] + 1), doses, prompts, style)
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
    participant: Participant,
    vocabulary: naming.Vocabulary,
    ways: tuple[_Values, _Values],
    fit: encoding.Fit,
    pattern: Floats,
    settings: Settings,
) -> Description:
    said, measured = ways
    reference, informed = fit.p_value > ALPHA, fit.q_value <= ALPHA
    effects, high, other = said.effects(), said.standing(reference), measured.standing(reference)
    of = effects[reference] if reference.sum() >= naming.FEWEST else effects
    difference = (effects - of.mean(axis=0)) / settings.dose
    # Nothing tells which end of the main pattern is up, so it is the one that says the word that stands out most.
    largest = high[np.arange(len(high)), np.abs(high).argmax(axis=1)]
    sign = np.where((settings.pattern == "main") & (largest < 0), -1.0, 1.0)
    high, other, difference = (sign[:, None] * values for values in (high, other, difference))
    p_value, q_value = _tested(high, reference, informed)
    best, measured_best, atlas = high.argmax(axis=1), other.argmax(axis=1), participant.atlas
    every, words = np.arange(len(best)), np.array(vocabulary.words, dtype=object)
    columns = {
        "parcel": atlas.names,
        "n_vertices": np.bincount(atlas.labels[participant.scale(settings.fold) > 0], minlength=len(best) + 1)[1:],
        "name": np.where(informed, words[best], None),
        "words": [_listed(words, row, q) for row, q in zip(high, q_value, strict=True)],
        "best_word": words[best],
        "factor": [vocabulary.factors[i] or None for i in best],
        "difference": difference[every, best],
        "standing": high[every, best],
        "p_value": p_value[every, best],
        "q_value": q_value[every, best],
        "stability": said.stability(best, sign, reference, settings),
        "fit_r": fit.r,
        "fit_p": fit.p_value,
        "fit_q": fit.q_value,
        "measured_word": words[measured_best],
        "measured_stability": measured.stability(measured_best, sign, reference, settings),
        "agreement": naming.agreement(high, other),
        "same_word": np.where(best == measured_best, "true", "false"),
    }
    on_vertices = np.concatenate([[0.0], sign])[atlas.labels].astype(np.float32)
    return Description(pd.DataFrame(columns), vocabulary, difference, high, other, pattern * on_vertices, atlas)


def _said(participant: Participant, found: Description, settings: Settings) -> Array:
    """(P,) by how much more often generated texts have the name of a parcel when it is driven up than when down."""
    out, chosen = np.full(len(found.table), np.nan), np.flatnonzero(found.named)
    if not settings.n_captions:
        return out
    bases = _bases(participant.test(settings.fold), dataclasses.replace(settings, n_trials=settings.n_captions))
    decoder, how = participant.decoder(settings.fold), generation_of(participant.request.config)
    doses, best = (-settings.dose, settings.dose), found.driven.argmax(axis=1)
    for parcel in chosen:
        (texts,) = say(decoder, bases, found.pattern * (found.atlas.labels == parcel + 1), doses, how)
        less, more = (found.vocabulary.uses(own)[:, best[parcel]].mean() for own in texts)
        out[parcel] = more - less
    return out


def _tested(found: Array, reference: Bools, informed: Bools) -> tuple[Array, Array]:
    """(P, W) p of every word, and its false discovery rate over the words of parcels that know of texts; nan elsewhere."""
    p_value, q_value = naming.standing_p(found, reference), np.full(found.shape, np.nan)
    q_value[informed] = false_discovery_q(p_value[informed].ravel()).reshape(-1, found.shape[1])
    return p_value, q_value


def _listed(words: NDArray[np.object_], high: Array, q_value: Array) -> str | None:
    found: Ints = np.flatnonzero(q_value <= ALPHA)
    return ", ".join(words[found[np.argsort(-high[found])]]) or None
