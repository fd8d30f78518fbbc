"""The whole experiment: sites driven at doses in held-out trials, words read off, null patches beside them.

    participant = open_participant("out", "01")
    facts = read_facts(Path("bids/derivatives/simulation/stimuli.tsv"))
    localizer, held = halves(participant)
    sites = contrasts(participant, facts, "subject", localizer, Cut(top=200))
    found = stimulate(participant, sites, words_in(participant, facts.vocabulary), held)

`Stimulation.effects` is a table of sites and words, `Stimulation.doses` its curves, `Stimulation.captions` what the model says.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.core.types import Examples, Floats, Ints
from bids_brainlm.insilico.captions import say
from bids_brainlm.insilico.drive import BATCH, mean_trial, nll_of_driven, zero_trial
from bids_brainlm.insilico.effects import (
    CAPTION_COLUMNS,
    DOSE_COLUMNS,
    Slopes,
    against_nulls,
    alike,
    dose_slope,
    effects_table,
    rivals_of,
    usable_nulls,
)
from bids_brainlm.insilico.nulls import Places, elsewhere, null_patches, places_of
from bids_brainlm.insilico.participant import Participant
from bids_brainlm.insilico.reverse import Reversed, reverse, subspace_of
from bids_brainlm.insilico.sites import Site, patterns_of, refuse_seen
from bids_brainlm.insilico.training_range import TrainingRange, training_range
from bids_brainlm.insilico.words import Framed, Word, framed, words_of
from bids_brainlm.language.stimuli import named
from bids_brainlm.models.fusion import BrainLM
from bids_brainlm.stages.decode import generation_of

LOGGER = logging.getLogger(__name__)

Doubles = NDArray[np.float64]

DOSES = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Standard deviations, where a site is 1."""

_NULLS, _ELSEWHERE, _TRIALS = 11, 12, 13
"""Streams of the seed."""


@dataclass(frozen=True)
class Experiment:
    """How sites are driven.

    Parameters
    ----------
    doses : tuple of float
    trials : int
        Held-out trials that are driven, drawn at random; 0 for all.
    nulls : int
        Null patches that a site is compared with, at least; those of alike sites are shared.
    captions : int
        Trials whose texts are generated at every dose.
    fold : int
    seed : int
    batch_size : int
        Brains that are computed together.
    """

    doses: tuple[float, ...] = DOSES
    trials: int = 16
    nulls: int = 500
    captions: int = 4
    fold: int = 0
    seed: int = 0
    batch_size: int = BATCH


@dataclass(frozen=True, eq=False)
class Stimulation:
    """What was found.

    Parameters
    ----------
    sites : tuple of Site
    words : tuple of Word
    experiment : Experiment
    effects, doses, captions : DataFrame
        Columns `effects.EFFECT_COLUMNS`, `effects.DOSE_COLUMNS`, `effects.CAPTION_COLUMNS`.
    trials : tuple of str
        Ids of the trials that were driven.
    """

    sites: tuple[Site, ...]
    words: tuple[Word, ...]
    experiment: Experiment
    effects: pd.DataFrame
    doses: pd.DataFrame
    captions: pd.DataFrame
    trials: tuple[str, ...]

    def verdict(self, level: float = 0.05) -> tuple[str, ...]:
        """What the tests say, in a line each."""
        raised = self.effects[self.effects["q_raised"] <= level]
        lowered = self.effects[self.effects["q_lowered"] <= level]
        # With one word found a site, q is p times the number of words.
        fewest, wanted = int(self.effects["n_null"].min()), int(np.ceil(len(self.words) / level)) - 1
        few = f" Only {fewest} null patches for some site; to find one word a site takes {wanted}." if fewest < wanted else ""
        if not fewest and self.effects["n_null"].max() == 0:
            return ("There are no null patches, so nothing is tested.",)
        if raised.empty and lowered.empty:
            return (
                f"Driving these sites changes no word more than null patches do (q <= {level:g}): no effect on the model.{few}",
            )
        lines = [f"{len(raised)} of {len(self.effects)} pairs of site and word are raised, {len(lowered)} lowered.{few}"]
        for site, rows in raised.groupby("site", sort=False):
            listed = ", ".join(
                f"{row.word} ({row.slope:+.2f})" for row in rows.sort_values("slope", ascending=False).itertuples()
            )
            lines.append(f"{site} raises {listed} nats per unit of dose")
        return tuple(lines)


def training_texts(participant: Participant, fold: int = 0) -> list[str]:
    """Every text that the decoder of a fold was trained with, in order."""
    split = participant.folds[fold]
    return sorted({text for i in split.train for text in split.examples.references[i]})


def words_in(participant: Participant, vocabulary: Mapping[str, Mapping[str, Sequence[str]]], fold: int = 0) -> tuple[Word, ...]:
    """Words of every factor with the phrases by which the participant's training texts say them."""
    return words_of(vocabulary, training_texts(participant, fold))


def stimulate(
    participant: Participant,
    sites: Sequence[Site],
    words: Sequence[Word],
    held: Ints | None = None,
    experiment: Experiment | None = None,
) -> Stimulation:
    """Drive every site, and null patches of it, at every dose.

    Parameters
    ----------
    participant : Participant
    sites : sequence of Site
    words : sequence of Word
        From `words_in`.
    held : (m,) int64, optional
        Held-out examples that may be driven, such as the second half of `halves`; all held-out ones when None.
    experiment : Experiment, optional

    Raises
    ------
    LeakageError
        When one of the examples was trained with.
    ValueError
        Without sites or words, or when sites share a name.
    """
    how = experiment or Experiment()
    if not sites or not words or len({site.name for site in sites}) < len(sites):
        raise ValueError(f"{len(sites)} sites and {len(words)} words; expected some of each, and sites of different names")
    bases = bases_of(participant, held, how)
    decoder, style = participant.decoder(how.fold), participant.request.config.model.style
    reader = _Reader(
        decoder.model,
        framed(words, bases, training_texts(participant, how.fold), decoder.text, decoder.model.n_tokens, style, seed=how.seed),
        bases,
        how,
    )
    patterns = patterns_of(sites)
    places = places_of(
        participant.trials, participant.scale(how.fold) > 0, participant.atlas.labels, participant.request.config.run.offline
    )
    curves = reader.curves(patterns)
    effects = _effects(reader, sites, patterns, places, curves)
    split = participant.folds[how.fold]
    doses = _doses(sites, reader, curves, training_range(decoder.model, split.examples, split.train))
    spoken = bases.take(np.arange(min(how.captions, len(bases))))
    captions = _captions(participant, sites, patterns, spoken, words, how)
    return Stimulation(tuple(sites), tuple(words), how, effects, doses, captions, tuple(map(str, bases.id)))


def bases_of(participant: Participant, held: Ints | None, how: Experiment) -> Examples:
    """The trials that are driven: of the held-out ones as many as are asked for, drawn at random."""
    split, test = participant.folds[how.fold], participant.test(how.fold)
    chosen = split.test if held is None else np.asarray(held)
    refuse_seen(participant, chosen, how.fold)
    place = {int(example): i for i, example in enumerate(split.test)}
    index = np.array([place[int(example)] for example in chosen if int(example) in place], dtype=np.int64)
    if not index.size:
        raise ValueError("no held-out example is left to be driven")
    if how.trials and how.trials < index.size:
        index = np.sort(np.random.default_rng((how.seed, _TRIALS)).permutation(index)[: how.trials])
    return test.take(index)


def backwards(participant: Participant, words: Sequence[Word], held: Ints | None, how: Experiment) -> tuple[Reversed, ...]:
    """For each word a pattern that makes the model say it of the trials that `stimulate` drives."""
    if not words:
        return ()
    bases, subspace, texts = (
        bases_of(participant, held, how),
        subspace_of(participant, how.fold),
        training_texts(participant, how.fold),
    )
    return tuple(reverse(participant, word, bases, texts, subspace, fold=how.fold) for word in words)


@dataclass(frozen=True, eq=False)
class _Reader:
    """Reads words off driven responses."""

    model: BrainLM
    framed: Framed
    bases: Examples
    how: Experiment

    def log_p(self, patterns: Floats, bases: Examples | None = None) -> Doubles:
        """(S, A, n, W) log-probability of the words in the frames of the bases."""
        driven = self.bases if bases is None else bases
        nll = nll_of_driven(self.model, driven, patterns, self.how.doses, self.framed.texts, batch_size=self.how.batch_size)
        return self.framed.log_probability(nll)

    def curves(self, patterns: Floats) -> dict[str, Doubles]:
        """Base -> (S, A, n, W): trials, their mean, and zeros, in the same frames."""
        made = {"mean": mean_trial(self.bases), "zero": zero_trial(self.bases)}
        same = {name: self._in_frames(one) for name, one in made.items()}
        return {"trials": self.log_p(patterns), **{name: self.log_p(patterns, bases) for name, bases in same.items()}}

    def _in_frames(self, one: Examples) -> Examples:
        rows = np.repeat(one.rows, len(self.bases), axis=0)
        return dataclasses.replace(self.bases, recording=one.recording, rows=rows)

    def slope(self, patterns: Floats) -> tuple[Doubles, Doubles]:
        """(S, W) slopes of words, and of their rivals, mean over trials."""
        log_p = self.log_p(patterns)
        return self._mean_slopes(log_p)

    def _mean_slopes(self, log_p: Doubles) -> tuple[Doubles, Doubles]:
        own, rivals = (dose_slope(values, self.how.doses) for values in (log_p, rivals_of(log_p, self.framed.words)))
        return own.mean(axis=1), rivals.mean(axis=1)


def _effects(
    reader: _Reader, sites: Sequence[Site], patterns: Floats, places: Places, curves: Mapping[str, Doubles]
) -> pd.DataFrame:
    words, how = reader.framed.words, reader.how
    slopes = Slopes(
        dose_slope(curves["trials"], how.doses),
        dose_slope(rivals_of(curves["trials"], words), how.doses),
        dose_slope(curves["mean"], how.doses).mean(axis=1),
        dose_slope(curves["zero"], how.doses).mean(axis=1),
        reader.slope(-patterns)[0],
        _wrong_region(reader, patterns, places),
    )
    null, null_rivals, norms, usable = _nulls(reader, patterns, places)
    own_norms = np.array([places.norm(pattern) for pattern in patterns])
    tested = against_nulls(slopes.trials.mean(axis=1), own_norms, null, norms, usable)
    rivals = against_nulls(slopes.rivals.mean(axis=1), own_norms, null_rivals, norms, usable)
    return effects_table([site.name for site in sites], words, slopes, tested, rivals, reader.bases.group, how.seed)


def _wrong_region(reader: _Reader, patterns: Floats, places: Places) -> Doubles:
    """(S, W) slopes with every pattern moved outside of all sites; nan where there is no room."""
    out = np.full((len(patterns), len(reader.framed.words)), np.nan)
    moved = [elsewhere(pattern, places, patterns, (reader.how.seed, _ELSEWHERE, s)) for s, pattern in enumerate(patterns)]
    known = [s for s, pattern in enumerate(moved) if pattern is not None]
    if known:
        out[known] = reader.slope(np.stack([pattern for pattern in moved if pattern is not None]))[0]
    return out


def _nulls(reader: _Reader, patterns: Floats, places: Places) -> tuple[Doubles, Doubles, Doubles, NDArray[np.bool_]]:
    """Slopes (N, W) of null patches and of their rivals, their norms (N,), and which site uses which (S, N)."""
    like = alike(patterns, places)
    # Whoever shares with the fewest decides, so that every site has as many as were asked for.
    shares = np.where(like, like.sum(axis=1), len(patterns)).min(axis=1)
    found: list[tuple[Doubles, Doubles]] = []
    norms: list[float] = []
    usable = [np.zeros((len(patterns), 0), dtype=np.bool_)]
    for s, pattern in enumerate(patterns):
        # One site's patches at a time: all of them would be hundreds of maps.
        patches = null_patches(pattern, places, -(-reader.how.nulls // int(shares[s])), (reader.how.seed, _NULLS, s))
        if len(patches):
            found.append(reader.slope(patches))
            norms += [places.norm(patch) for patch in patches]
            usable.append(usable_nulls(patterns, patches, np.full(len(patches), s), places))
        LOGGER.info("null patches of site %d of %d: %d", s + 1, len(patterns), len(patches))
    empty = np.zeros((0, len(reader.framed.words)))
    own, rivals = (np.concatenate([empty, *(pair[i] for pair in found)]) for i in (0, 1))
    return own, rivals, np.array(norms), np.concatenate(usable, axis=1)


def _doses(sites: Sequence[Site], reader: _Reader, curves: Mapping[str, Doubles], span: TrainingRange) -> pd.DataFrame:
    words, doses = reader.framed.words, reader.how.doses
    parts = []
    for s, site in enumerate(sites):
        vertices, norms = span.beyond(reader.bases, site.pattern, doses)
        for base, log_p in curves.items():
            rivals = rivals_of(log_p[s], words).mean(axis=1)
            error = log_p[s].std(axis=1) / max(np.sqrt(log_p.shape[2] - 1), 1)
            for a, dose in enumerate(doses):
                own = base == "trials"
                shared = {"site": site.name, "dose": dose, "base": base}
                part = pd.DataFrame(
                    {
                        "factor": [word.factor for word in words],
                        "word": [word.label for word in words],
                        "log_probability": log_p[s, a].mean(axis=0),
                        "standard_error": error[a],
                        "rivals": rivals[a],
                    }
                )
                parts.append(
                    part.assign(**shared, beyond_vertices=vertices[a] if own else np.nan, beyond_norm=norms[a] if own else np.nan)
                )
    return pd.concat(parts, ignore_index=True)[list(DOSE_COLUMNS)]


def _captions(
    participant: Participant, sites: Sequence[Site], patterns: Floats, bases: Examples, words: Sequence[Word], how: Experiment
) -> pd.DataFrame:
    if not len(bases):
        return pd.DataFrame(columns=list(CAPTION_COLUMNS))
    said = say(participant.decoder(how.fold), bases, patterns, how.doses, generation_of(participant.request.config))
    factors = dict.fromkeys(word.factor for word in words)
    names = {factor: {word.label: word.names for word in words if word.factor == factor} for factor in factors}
    rows = [
        (
            site.name,
            dose,
            str(bases.id[i]),
            text,
            ", ".join(label for own in names.values() for label in sorted(named(text, own))),
        )
        for s, site in enumerate(sites)
        for a, dose in enumerate(how.doses)
        for i, text in enumerate(said[s][a])
    ]
    return pd.DataFrame(rows, columns=list(CAPTION_COLUMNS))


def category_rate(captions: pd.DataFrame) -> pd.DataFrame:
    """Share of captions that name each word: one row a site and dose, one column a word that any caption names."""
    lists = captions["words"].fillna("").str.split(", ")
    said = sorted({word for words in lists for word in words if word})
    counted = {word: lists.map(lambda words, word=word: word in words).astype(float) for word in said}
    return (
        pd.DataFrame({"site": captions["site"], "dose": captions["dose"], **counted}).groupby(["site", "dose"], sort=False).mean()
    )
