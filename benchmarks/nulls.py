"""Do the tests of the reports keep their level? Data without any effect, many times; how often is p <= .05?

Every simulation keeps the dependence that its test claims to keep: runs that differ, texts that share a response, responses that
are good for all texts, neighbours in time that are alike. A rate may not lie above .05 by more than the binomial bound of as
many draws (one-sided, 99.9 %, since there are many rows). It may lie below: a statistic of few values cannot reach .05 exactly.
The last rows are there for contrast: what would be wrong, and is not used.

``--end-to-end`` starts from responses: splits, linear readouts, label and identification tests, with nothing in the responses.

    OMP_NUM_THREADS=1 python benchmarks/nulls.py [--nulls 2000] [--end-to-end 500]
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import signal, stats

from bids_brainlm.core.interventions import exchanges, partners
from bids_brainlm.core.splits import make_splits
from bids_brainlm.core.types import Examples, Prompt, Recording
from bids_brainlm.evaluation.embeddings import bag_of_words
from bids_brainlm.evaluation.group import over_participants
from bids_brainlm.evaluation.labels import accuracy_permutation
from bids_brainlm.evaluation.linear import Identified, identify, predict
from bids_brainlm.evaluation.matrix import Evidence, LikelihoodMatrix
from bids_brainlm.evaluation.multiplicity import false_discovery_q
from bids_brainlm.evaluation.pairs import Comparisons, comparisons
from bids_brainlm.evaluation.readout import kernels, named
from bids_brainlm.evaluation.resampling import line, permutation_p, sign_flip_p
from bids_brainlm.evaluation.statistics import primary_test
from bids_brainlm.evaluation.story.comparison import Pairing, shift_test
from bids_brainlm.evaluation.table import METRICS_COLUMNS, PRIMARY

Array = NDArray[np.float64]
ALPHA, K = 0.05, 199


@dataclass(frozen=True)
class Null:
    """One row: a test of nothing, in words, and p values of one data set (several where several figures are tested).

    ``but`` says why a row need not keep its level: the test is not used, or the data are beyond what it can do.
    """

    test: str
    kept: str
    draw: Callable[[np.random.Generator], Any]
    but: str = ""


NULLS: list[Null] = []


NOT_USED = "not used"


def null(test: str, kept: str, but: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(draw: Callable[..., Any]) -> Callable[..., Any]:
        NULLS.append(Null(test, kept, draw, but))
        return draw

    return add


@cache  # one object a design, so that `bank` knows it again
def trials(runs: int, trials_of_run: int, texts: int = 1, stimuli: int = 0) -> Examples:
    """Trials of several runs, each with one or more texts; with ``stimuli``, as many, shown again and again."""
    n = runs * trials_of_run
    names = np.array([f"s{i % stimuli if stimuli else i}" for i in range(n)])
    recording = Recording(np.zeros((n, 1), np.float32), "a", "beta", np.arange(n), np.repeat(np.arange(runs), trials_of_run))
    return examples_of(recording, np.repeat(np.arange(n), texts), names.repeat(texts))


@cache
def windows(runs: int, length: int) -> Examples:
    """Windows of two volumes, one beginning at every volume of every run."""
    n = runs * length
    recording = Recording(
        np.zeros((n + runs, 1), np.float32),
        "a",
        "bold",
        np.tile(np.arange(length + 1), runs),
        np.repeat(np.arange(runs), length + 1),
    )
    rows = np.concatenate([np.arange(length) + run * (length + 1) for run in range(runs)])
    return examples_of(recording, rows[:, None] + np.arange(2), np.array([f"w{i:04d}" for i in range(n)]))


def examples_of(recording: Recording, rows: Any, names: Any) -> Examples:
    n = len(rows)
    ids = np.array([f"{i}" for i in range(n)])
    return Examples(recording, rows, (Prompt("", "x"),) * n, tuple((f"{name}",) for name in names), names, names, ids)


def matrix(examples: Examples, rng: np.random.Generator) -> Array:
    """(n, n) NLL: texts that are hard, brains that are good for every text, runs, and what brains of a run have in common.

    Texts of one stimulus are alike, and so a brain suits all of them or none.
    """
    n, stimulus = len(examples), np.unique(examples.stimulus, return_inverse=True)[1]
    brain = np.unique(examples.rows[:, 0, 0], return_inverse=True)[1]
    common = rng.normal(size=(stimulus.max() + 1, brain.max() + 1))
    own = rng.normal(size=(n, brain.max() + 1))
    by_run = rng.normal(0, 2, size=(examples.run.max() + 1,) * 2)[np.ix_(examples.run, examples.run)]
    quality = rng.normal(size=(n, 1)) + rng.normal(size=brain.max() + 1)[brain]
    return np.asarray(common[np.ix_(stimulus, brain)] + 0.5 * own[:, brain] + by_run + quality)


@cache
def bank(examples: Examples, of_partners: bool = False) -> NDArray[np.int64]:
    """Many pairings, of which every simulation takes some: drawing them anew each time would take most of the time."""
    return partners(examples, 500, 0) if of_partners else exchanges(examples, 20000, 0)


def drawn_from(pairings: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """(K, n) pairings at random, each one of the independent draws."""
    return pairings[rng.integers(len(pairings), size=K)]


def p_primary(nll: Array, drawn: NDArray[np.int64]) -> float:
    own = np.arange(len(nll))
    return primary_test(nll[own, own], nll[own, drawn]).p_value


def seed_of(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


@null("primary test", "6 runs of 8 trials that differ")
def primary(rng: np.random.Generator) -> float:
    examples = trials(6, 8)
    return p_primary(matrix(examples, rng), drawn_from(bank(examples), rng))


@null("primary test", "8 runs of 3 trials")
def primary_short(rng: np.random.Generator) -> float:
    examples = trials(8, 3)
    return p_primary(matrix(examples, rng), drawn_from(bank(examples), rng))


@null("primary test", "3 texts a response")
def primary_texts(rng: np.random.Generator) -> float:
    examples = trials(4, 8, texts=3)
    return p_primary(matrix(examples, rng), drawn_from(bank(examples), rng))


@null("primary test", "4 runs, stimuli shown 4 times")
def primary_repeats(rng: np.random.Generator) -> float:
    examples = trials(4, 12, stimuli=12)
    return p_primary(matrix(examples, rng), drawn_from(bank(examples), rng))


@null("primary test", "one run of 32 trials, stimuli shown 4 times")
def primary_repeats_in_run(rng: np.random.Generator) -> float:
    examples = trials(1, 32, stimuli=8)
    return p_primary(matrix(examples, rng), drawn_from(bank(examples), rng))


@null("likelihoods: pairwise, top 1, top 10, identification", "2 runs of 12 trials that differ")
def likelihoods(rng: np.random.Generator) -> list[float]:
    examples = trials(2, 12)
    n = np.arange(24)
    compared = dataclasses.replace(compared_in(examples), drawn=bank(examples)[rng.integers(2000, size=99)])
    found = Evidence.of(
        LikelihoodMatrix(matrix(examples, rng), n, compared.allowed, tuple("a" * 24), tuple("b" * 24), n), compared, ["x"] * 24
    )
    values = found.figures.values()
    return [permutation_p(float(np.nanmean(figure.values)), figure.null) for figure in values]


@cache
def compared_in(examples: Examples) -> Comparisons:
    return comparisons(examples, 1, 10**6, 0)


def series(rng: np.random.Generator, examples: Examples, memory: float = 0.7) -> Array:
    """(n,) slow series, a new one for every run, of variance 1."""
    fresh = rng.standard_normal(len(examples))
    parts = [fresh[examples.run == run] for run in np.unique(examples.run)]
    scaled = [np.append(part[0], np.sqrt(1 - memory**2) * part[1:]) for part in parts]
    return np.concatenate([signal.lfilter([1.0], [1.0, -memory], part) for part in scaled])


def p_of_volumes(rng: np.random.Generator, runs: int, length: int, memory: float) -> float:
    examples = windows(runs, length)
    n = len(examples)
    nll = -np.outer(series(rng, examples, memory), series(rng, examples, memory)) + rng.normal(0, 0.1, (n, n))
    return p_primary(nll, drawn_from(bank(examples), rng))


@null("primary test, volumes", "3 runs of 80 windows, neighbours correlate by .7")
def volumes(rng: np.random.Generator) -> float:
    return p_of_volumes(rng, 3, 80, 0.7)


@null("primary test, volumes", "1 run of 150 windows, the same")
def volumes_of_one_run(rng: np.random.Generator) -> float:
    return p_of_volumes(rng, 1, 150, 0.7)


@null("primary test, volumes", "3 runs of 80 windows, neighbours correlate by .95", "slower than a high-pass filter leaves")
def volumes_slow(rng: np.random.Generator) -> float:
    return p_of_volumes(rng, 3, 80, 0.95)


@null("readout: pairwise, identification, top 10", "4 runs of 12; predictions that are much alike")
def readout_identified(rng: np.random.Generator) -> list[float]:
    examples, d = trials(4, 12), 8
    run = rng.normal(size=(4, d))[examples.run]
    predicted = run + rng.normal(size=d) + rng.normal(size=(48, d))
    targets = rng.normal(size=(4, d))[examples.run] + rng.normal(size=(48, d))
    texts = [f"{name}" for name in examples.stimulus]
    draws = (bank(examples, True)[:9], drawn_from(bank(examples), rng))
    found = identify(predicted, targets, texts, examples.group, *draws)
    return [found.cosine.p_value, found.identification.p_value, found.top.p_value]


@null("facts, label permutation", "8 runs of 12 in each of which other labels are common")
def labels(rng: np.random.Generator) -> float:
    runs = np.repeat(np.arange(8), 12)
    shares = rng.dirichlet(np.full(4, 0.7), size=8)
    true, said = (np.array([rng.choice(list("abcd"), p=shares[run]) for run in runs]) for _ in range(2))
    return accuracy_permutation(said, true, runs, K, seed_of(rng)).p_value


@null("zero-shot, hits", "6 runs of 16 in each of which the category, and its name, are as common as they like")
def hits(rng: np.random.Generator) -> float:
    runs = np.repeat(np.arange(6), 16)
    there, says = (rng.random(96) < rng.beta(1, 2, size=6)[runs] for _ in range(2))
    there[0] = True
    return accuracy_permutation(np.where(says, "yes", "no"), np.where(there, "yes", ""), runs, K, seed_of(rng)).p_value


@null("metrics, sign flips", "12 units of 1 to 6 texts, heavy tails")
def flips(rng: np.random.Generator) -> float | None:
    units = np.repeat(np.arange(12), rng.integers(1, 7, size=12))
    gain = rng.standard_t(3, size=12)[units] + 0.5 * rng.standard_t(3, size=units.size)
    return sign_flip_p(gain, units, 999, seed_of(rng))


@null("primary test over participants, sign flips", "8 participants, of whom some are noisy")
def participants(rng: np.random.Generator) -> float | None:
    return sign_flip_p(rng.normal(size=8) * rng.gamma(2, size=8), np.arange(8), 999, seed_of(rng))


@null("surprise, slope", "15 units of 8 texts with surprise and scatter of their own")
def slope(rng: np.random.Generator) -> float | None:
    units = np.repeat(np.arange(15), 8)
    x = rng.gamma(2, size=15)[units] + rng.gamma(1, size=units.size)
    y = rng.normal(size=15)[units] + (0.5 + rng.gamma(2, size=15)[units]) * rng.normal(size=units.size)
    return line(x, y, units, 10, 999, seed_of(rng)).p_value


@null("stories, circular shifts", "2 stories of 40 long windows, neighbours correlate by .7")
def stories(rng: np.random.Generator) -> float:
    examples = windows(2, 40)
    said, heard = series(rng, examples), series(rng, examples)
    scores = np.outer(said, heard)
    pairings = [Pairing(f"story {run}", scores[np.ix_(examples.run == run, examples.run == run)], 3) for run in range(2)]
    return shift_test(pairings, "higher", 999, seed_of(rng)).p


def metrics_of(rng: np.random.Generator) -> pd.DataFrame:
    """The metrics table of one participant of the population: 12 figures that correlate, and the primary one."""
    values = 0.5 + rng.normal() + rng.normal(size=12)
    rows = [(PRIMARY, "true", rng.normal(), np.nan, np.nan, 9, 40.0, 0.5, np.nan)]
    rows += [(f"m{k}", "true", value, np.nan, np.nan, 9, 0.5, 0.5, np.nan) for k, value in enumerate(values)]
    return pd.DataFrame(rows, columns=list(METRICS_COLUMNS))


@null("group, maximum over 13 figures", "10 participants, figures correlate by .5; any of them found")
def maximum(rng: np.random.Generator) -> float:
    tables = {f"{i}": metrics_of(rng) for i in range(10)}
    return float(over_participants(tables, K, seed_of(rng), 10)["p_max"].min())


@null("q over 20 secondary tests", "tests that correlate by .5; any of them found")
def discoveries(rng: np.random.Generator) -> float:
    z = np.sqrt(0.5) * (rng.normal() + rng.normal(size=20))
    return float(false_discovery_q(stats.norm.sf(z)).min())


@null("primary test against partners", "6 runs of 8 trials", NOT_USED)
def primary_partners(rng: np.random.Generator) -> float:
    examples = trials(6, 8)
    return p_primary(matrix(examples, rng), drawn_from(bank(examples, True), rng))


@null("primary test against partners", "8 runs of 3 trials", NOT_USED)
def primary_partners_short(rng: np.random.Generator) -> float:
    examples = trials(8, 3)
    return p_primary(matrix(examples, rng), drawn_from(bank(examples, True), rng))


@null("texts exchanged one by one", "3 texts a response", NOT_USED)
def primary_texts_alone(rng: np.random.Generator) -> float:
    examples, alone = trials(4, 8, texts=3), trials(4, 24)
    return p_primary(matrix(examples, rng), drawn_from(bank(alone), rng))


@null("volumes exchanged freely", "1 run of 150 windows, neighbours correlate by .7", NOT_USED)
def free_exchanges(rng: np.random.Generator) -> float:
    examples = windows(1, 150)
    nll = -np.outer(series(rng, examples), series(rng, examples))
    return p_primary(nll, drawn_from(bank(trials(1, 150)), rng))


@null("volumes, small shifts left out", "2 runs of 40 windows, the same", NOT_USED)
def far_shifts(rng: np.random.Generator) -> float:
    examples = windows(2, 40)
    nll = -np.outer(series(rng, examples), series(rng, examples))
    return p_primary(nll, drawn_from(bank(examples, True), rng))


def end_to_end(rng: np.random.Generator, scheme: str) -> dict[str, float]:
    """P values of a participant whose responses hold nothing of the texts: 6 runs of 16 trials, 48 stimuli shown twice."""
    names = np.array([f"s{i}" for i in np.concatenate([rng.permutation(48), rng.permutation(48)])])
    runs = np.repeat(np.arange(6), 16)
    data = rng.normal(size=(96, 40)) + rng.normal(size=(6, 40))[runs] + np.linspace(0, 2, 96)[:, None]
    recording = Recording(data.astype(np.float32), "a", "beta", np.arange(96), runs)
    words = {name: rng.choice([f"word{k}" for k in range(30)], size=5) for name in np.unique(names)}
    facts = {name: str(rng.choice(list("abc"))) for name in words}
    said = np.array([" ".join(words[name]) for name in names])
    examples = Examples(
        recording, np.arange(96), tuple(Prompt("", text) for text in said), tuple((t,) for t in said), names, names,
        np.array([f"{i}" for i in range(96)]),
    )  # fmt: skip
    label, true, tested, parts = [], [], [], []
    for split in make_splits(examples, scheme, 4, test=0.5, seed=seed_of(rng)):
        products = kernels([(data[split.train], data[split.test])])
        groups = np.unique(names[split.train], return_inverse=True)[1]
        own = np.array([facts[name] for name in names])
        label.append(named(products, own[split.train], "ridge", groups))
        true.append(own[split.test])
        tested.append(runs[split.test])
        embedded = bag_of_words(list(said), list(said[split.train]))
        mean = embedded[split.train].mean(axis=0)
        predicted, test = predict(products, embedded[split.train], groups), examples.take(split.test)
        draws = (partners(test, 9, 0), exchanges(test, K, seed_of(rng)))
        parts.append(identify(predicted, embedded[split.test] - mean, list(said[split.test]), names[split.test], *draws))
    found = Identified.concat(parts)
    facts_p = accuracy_permutation(*map(np.concatenate, (label, true, tested)), K, seed_of(rng)).p_value
    return {
        "facts of a ridge readout": facts_p,
        "readout: pairwise": found.cosine.p_value,
        "readout: identification": found.identification.p_value,
        "readout: top 10": found.top.p_value,
    }


def bound(n: int) -> float:
    """Largest rate that n draws of a test of level .05 may have (99.9 %)."""
    return float(stats.binom.ppf(0.999, n, ALPHA) / n)


def rates(item: Null, n: int) -> Array:
    """(figures,) share of n data sets in which p <= .05."""
    p = np.array([np.atleast_1d(item.draw(np.random.default_rng((seed, NULLS.index(item))))) for seed in range(n)], dtype=float)
    return np.asarray((p <= ALPHA + 1e-12).mean(axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nulls", type=int, default=2000)
    parser.add_argument("--end-to-end", type=int, default=0)
    options = parser.parse_args()
    wrong: list[str] = []
    if options.nulls:
        print(f"| test | what is kept | rate at .05 (at most {bound(options.nulls):.4f}) |\n| --- | --- | --- |", flush=True)
    for item in NULLS if options.nulls else ():
        found = rates(item, options.nulls)
        wrong += [item.test] if not item.but and found.max() > bound(options.nulls) else []
        kept = item.kept + (f"; **{item.but}**" if item.but else "")
        print(f"| {item.test} | {kept} | {', '.join(f'{rate:.4f}' for rate in found)} |", flush=True)
    if options.end_to_end:
        n = options.end_to_end
        print(f"\n| from responses, {n} times | rate at .05 (at most {bound(n):.4f}) |\n| --- | --- |")
        for scheme, words in (("single", "one split"), ("kfold", "4 folds")):
            p = pd.DataFrame([end_to_end(np.random.default_rng((seed, 99)), scheme) for seed in range(n)])
            for name, rate in (p <= ALPHA + 1e-12).mean().items():
                wrong += [str(name)] if rate > bound(n) else []
                print(f"| {name}, {words} | {rate:.4f} |", flush=True)
    if wrong:
        raise SystemExit(f"too often significant: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
