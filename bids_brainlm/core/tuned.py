"""Tuned estimators: `hrf`, `denoise`, `ridge` and `auto`, chains of the first one, two or three of these steps.

1. **hrf**: every unit gets the shape of a library that suits it best (`bids_brainlm.core.shapes`).
2. **denoise**: components of a noise pool become nuisance; their number is the one with which trials predict their partners in
   other runs best (`bids_brainlm.core.noise`; GLMdenoise, Kay et al. 2013, Front. Neurosci. 7:247).
3. **ridge**: fractional ridge, the fraction of each unit chosen in the same way (`bids_brainlm.core.ridge`), then brought back to
   the scale of least squares.

The chain is that of GLMsingle (Prince et al. 2022, eLife 11:e77599) but for what measurement decided: components are taken out
before shapes are compared, shapes are compared on repeats too, and every choice maximises the agreement of trials with repeats
in other runs (`bids_brainlm.core.repeats`). Runs share no regressor, so each is solved by itself; only choices join them.

`auto` takes the steps that the data allow and says why it left out the others.

>>> from bids_brainlm.core.design import nuisance, trial_design
>>> rng, frames, onsets = np.random.default_rng(0), 2.0 * np.arange(90), np.arange(5.0, 150, 9)
>>> design, drifts = trial_design(onsets, np.ones(17), frames), nuisance(frames, 0.01, np.zeros((90, 0)))
>>> pictures, responses = np.arange(17).astype(str), rng.normal(1, 1, (17, 200))
>>> series = [design @ responses + rng.normal(100, 0.1, (90, 200)) for _ in range(2)]
>>> runs = [Run(bold, onsets, np.ones(17), frames, drifts, pictures) for bold in series]
>>> auto = estimators.get("auto")
>>> tuning = auto.tune(runs)
>>> tuning.steps
('hrf', 'denoise', 'ridge')
>>> auto.estimate(runs[0], tuning, 0).shape  # percent signal change
(17, 200)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bids_brainlm.core import glm, repeats, ridge
from bids_brainlm.core.blocks import Model, blocks, group, stacked, width
from bids_brainlm.core.chunks import in_threads
from bids_brainlm.core.noise import components, deciding, fewest, noise_pool, with_each_number
from bids_brainlm.core.shapes import Score, both, cross_validated, explained, in_sample, least_squares, on_off, prior
from bids_brainlm.core.tuning import STEPS, Options, Run, Tuning
from bids_brainlm.core.types import Bools, Floats, Ints
from bids_brainlm.registry import estimators

Doubles = NDArray[np.float64]
Item = TypeVar("Item")

DEFAULTS = Options()

SHORTEST = 0.05
"""Share of the median trial's regressor that the least one's must have under a shape, if any shape has that."""

NO_REPEATS = "no stimulus is repeated in another run"
"""Why steps that are cross-validated are left out."""

FEWEST_UNITS = 50
"""Units that a noise pool must have."""


@dataclass(frozen=True, eq=False)
class Trials:
    """Which trials of all runs are repeats.

    Parameters
    ----------
    run, session : (N,) int
    rows : (m,) int
        Trials with partners.
    average : sparse (m, N)
        See `bids_brainlm.core.repeats.partners`.
    """

    run: Ints
    session: Ints
    rows: Ints
    average: Any

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Trials:
        number = np.repeat(np.arange(len(runs)), [run.onsets.size for run in runs])
        session = np.unique([run.session for run in runs], return_inverse=True)[1][number]
        rows, average = repeats.partners(np.concatenate([run.stimulus for run in runs]), number)
        return cls(number, session, rows, average)

    def agreement(self, betas: Floats) -> Floats:
        """(v,) agreement of the trials of ``betas`` (N, v), which are overwritten, with their partners."""
        return repeats.agreement(betas, self.rows, self.average, self.session)


@dataclass(frozen=True)
class Tuned:
    """A tuned estimator.

    Parameters
    ----------
    steps : tuple of str
        Steps to take, the first ones of `STEPS`.
    needed : bool
        Whether each must be possible; otherwise those that are not are left out.
    """

    steps: tuple[str, ...]
    needed: bool = True

    def tune(self, runs: Sequence[Run], options: Options = DEFAULTS, chosen: Sequence[bool] | None = None) -> Tuning:
        """Make the choices.

        Parameters
        ----------
        runs : sequence of Run
            All runs of a participant, with the same units; ``bold`` may be a memory map, of which a few columns are read at a
            time, those of every run.
        options : Options
        chosen : sequence of bool, optional
            Runs that choices are made on, all when None. Components are those of every run.

        Raises
        ------
        ValueError
            When a step that must be taken is not possible, or the trials of a run cannot be told apart.
        """
        used = [i for i, (_, use) in enumerate(zip(runs, chosen or [True] * len(runs), strict=True)) if use]
        if not used:
            raise ValueError("no run is left to make choices on")
        return _Tuner(self, list(runs), used, options).tuning()

    def estimate(self, run: Run, tuning: Tuning, index: int, options: Options = DEFAULTS) -> Floats:
        """Betas (n, V) float32 of run ``index`` in percent signal change; NaN where a unit is not usable in this run."""
        found = np.asarray(tuning.components[index], dtype=np.float64)
        own = replace(run, nuisance=np.column_stack([run.nuisance, found]))
        model = Model.of(own, options.shapes, options.step)
        betas = np.empty((run.onsets.size, run.bold.shape[1]), dtype=np.float32)
        solve = _separate if tuning.model == "lss" else _shrunk

        def fill(item: tuple[int, Ints]) -> None:
            shape, units = item
            block, good = model.block(units)
            betas[:, units] = np.where(good, solve(model, shape, block, tuning, units), np.nan)

        in_threads(fill, group(tuning.hrf), options.threads)
        return betas


estimators.register("hrf")(Tuned(STEPS[:1]))
estimators.register("denoise")(Tuned(STEPS[:2]))
estimators.register("ridge")(Tuned(STEPS[:3]))
estimators.register("auto")(Tuned(STEPS, needed=False))


def _shrunk(model: Model, shape: int, block: Floats, tuning: Tuning, units: Ints) -> Floats:
    """(n, v) ridge betas on the scale of least squares; least squares where the penalty is 0."""
    trials = model.regressors(shape)
    if "ridge" not in tuning.steps:
        return np.asarray(least_squares(trials) @ block)
    values, vectors = np.linalg.eigh(trials.T @ trials)
    rotated = (trials @ vectors).T.astype(np.float32) @ block
    rotated /= values[:, None].astype(np.float32) + tuning.penalty[units]
    return np.asarray(vectors.astype(np.float32) @ rotated * tuning.gain[units] + tuning.offset[units])


def _separate(model: Model, shape: int, block: Floats, tuning: Tuning, units: Ints) -> Floats:
    """(n, v) betas of least squares separate."""
    del tuning, units
    return np.asarray(glm.lss_weights(model.regressors(shape), model.nuisance).astype(np.float32) @ block)


class _Tuner:
    """The making of one `Tuning`; what is found on the way is kept between its steps."""

    def __init__(self, estimator: Tuned, runs: list[Run], used: list[int], options: Options) -> None:
        self.estimator, self.options, self.runs = estimator, options, runs
        self.used = used
        self.trials = Trials.of([runs[i] for i in used])
        self.every = in_threads(self._model, range(len(runs)), options.threads)
        self.models = self._used(self.every)
        self.left_out: dict[str, str] = {}
        self.fit = "lsa"

    def _model(self, index: int) -> Model:
        try:
            return Model.of(self.runs[index], self.options.shapes, self.options.step)
        except ValueError as error:
            raise ValueError(f"run {index + 1} of {len(self.runs)}: {error}") from error

    def tuning(self) -> Tuning:
        """All steps, one after the other."""
        allowed = self._candidates()
        if not self.trials.rows.size:
            self._leave_out(STEPS[1:], NO_REPEATS)
        r2, pool, pools, usable = self._pool()
        if not usable.any():
            raise ValueError("no unit varies in every run")
        found = self._components(pools) if pool.sum() >= FEWEST_UNITS else [np.zeros((len(m.nuisance), 0)) for m in self.every]
        if pool.sum() < FEWEST_UNITS:
            self._leave_out(STEPS[1:2], f"the noise pool has {int(pool.sum())} units, fewer than {FEWEST_UNITS}")
        hrf, score, how = self._shapes(found, allowed, usable)
        curve = self._curve(hrf, score, usable, found) if self._takes("denoise") else np.zeros(0)
        found = [each[:, : fewest(curve) if curve.size else 0] for each in found]
        # Without ridge: fraction 1, penalty 0, gain 1, offset 0.
        ridged = self._ridge(hrf, found) if self._takes("ridge") else np.tile([[1.0], [0.0], [1.0], [0.0]], hrf.size)
        fraction, penalty, gain, offset = ridged.astype(np.float32)
        return Tuning(
            steps=tuple(step for step in self.estimator.steps if step not in self.left_out),
            left_out=self.left_out,
            hrf=hrf,
            r2=r2,
            pool=pool,
            components=tuple(each.astype(np.float32) for each in found),
            curve=curve,
            fraction=fraction,
            penalty=penalty,
            gain=gain,
            offset=offset,
            model=self.fit,
            hrf_choice=how,
        )

    def _candidates(self) -> Bools:
        """(H,) shapes that may be chosen: all of them where trials are to be estimated separately."""
        for shortest in (SHORTEST, 0.0):
            allowed: Bools = np.logical_and.reduce([model.independent(shortest) for model in self.models])
            if allowed.any():
                return allowed
        self._leave_out(STEPS[1:], "the trials of a run cannot be told apart in one model")
        self.fit = "lss"
        for i, model in enumerate(self.models):
            try:
                glm.lss_weights(model.regressors(0), model.nuisance)
            except ValueError as error:
                raise ValueError(f"run {i + 1} of {len(self.models)}: {error}") from error
        return np.ones_like(allowed)

    def _takes(self, step: str) -> bool:
        return step in self.estimator.steps and step not in self.left_out

    def _leave_out(self, steps: Sequence[str], why: str) -> None:
        for step in steps:
            if self._takes(step):
                if self.estimator.needed:
                    raise ValueError(f"the step {step!r} is not possible: {why}; the estimator 'auto' leaves it out")
                self.left_out[step] = why

    def _n_units(self) -> int:
        return int(self.runs[0].bold.shape[1])

    def _pool(self) -> tuple[Floats, Bools, dict[str, Bools], Bools]:
        """ON-OFF R2 with all shapes' mean regressor; the noise pool of any session and of each; and the usable units."""
        sessions = {run.session for run in (model.run for model in self.models)}
        mean = [replace(model, trials=model.trials.mean(axis=0, keepdims=True)) for model in self.models]
        parts = {session: [i for i, model in enumerate(mean) if model.run.session == session] for session in sorted(sessions)}
        scores = {session: explained([mean[i] for i in members]) for session, members in parts.items()}
        whole = explained(mean)
        n = self._n_units()
        r2, usable, bright = np.zeros(n, np.float32), np.zeros(n, np.bool_), np.zeros(n, np.float32)
        own = {session: np.zeros(n, np.float32) for session in sessions}

        def look(part: slice) -> None:
            series, usable[part] = stacked(mean, part)
            r2[part] = whole(series)[0]
            for session, members in parts.items():
                own[session][part] = scores[session]([series[i] for i in members])[0]
            bright[part] = np.mean([np.nan_to_num(np.asarray(model.run.bold[:8, part])).mean(axis=0) for model in mean], axis=0)

        in_threads(look, blocks(n, width(mean)), self.options.threads)
        pools = {session: noise_pool(own[session], bright, usable) for session in sessions}
        return r2, np.logical_or.reduce(list(pools.values())), pools, usable

    def _components(self, pools: dict[str, Bools]) -> list[Doubles]:
        """Components of every run, from the pool of its session, or of any where choices were not made on its session."""
        anywhere: Bools = np.logical_or.reduce(list(pools.values()))

        def find(model: Model) -> Doubles:
            n_volumes, n_trials = model.trials.shape[1:]
            spare = n_volumes - n_trials - model.nuisance.shape[1] - 1
            return components(model, pools.get(model.run.session, anywhere), min(self.options.max_components, max(spare, 0)))

        found = in_threads(find, self.every, self.options.threads)
        most = min(each.shape[1] for each in found)
        return [each[:, :most] for each in found]

    def _used(self, each: Sequence[Item]) -> list[Item]:
        """Of one thing a run, those of the runs that choices are made on."""
        return [each[i] for i in self.used]

    def _shapes(self, found: list[Doubles], allowed: Bools, usable: Bools) -> tuple[NDArray[np.int16], Floats, str]:
        """Shape of each unit, its score, and the criterion."""
        how = self.options.hrf_choice
        if how == "auto":
            how = "both" if self.trials.rows.size and self.fit == "lsa" else "onoff"
        if how in ("cv", "both") and not self.trials.rows.size:
            raise ValueError("shapes cannot be cross-validated: no stimulus is repeated in another run; take 'onoff'")
        cleaned = [model.cleaned(each) for model, each in zip(self.models, self._used(found), strict=True)]
        candidates = np.flatnonzero(allowed)
        cleaned = [replace(model, trials=model.trials[candidates]) for model in cleaned]
        criterion, before = self._criterion(how, cleaned), prior(self.options.shapes[candidates], self.options.step)[:, None]
        hrf, best = np.zeros(usable.size, np.int16), np.zeros(usable.size, np.float32)

        def look(part: slice) -> None:
            scores = criterion(stacked(cleaned, part)[0]) + before
            hrf[part], best[part] = candidates[scores.argmax(axis=0)], scores.max(axis=0)

        in_threads(look, blocks(usable.size, width(cleaned)), self.options.threads)
        return hrf, best, how

    def _criterion(self, how: str, models: Sequence[Model]) -> Score:
        by_repeats = {"cv": cross_validated, "both": both}
        if how in by_repeats:
            return by_repeats[how](models, self.trials.rows, self.trials.average, self.trials.session)
        return {"onoff": on_off, "insample": in_sample}[how](models)

    def _curve(self, hrf: NDArray[np.int16], score: Floats, usable: Bools, found: list[Doubles]) -> Doubles:
        """(K + 1,) mean agreement over the deciding units, by number of components."""
        units = deciding(score, usable)
        used = self._used(found)

        def look(item: tuple[int, Ints]) -> Doubles:
            shape, place = item
            series = stacked(self.models, units[place])[0]
            each = zip(self.models, used, series, strict=True)
            betas = [with_each_number(model.regressors(shape), own, block) for model, own, block in each]
            return np.array([self.trials.agreement(each) for each in np.concatenate(betas, axis=1)])

        parts = in_threads(look, group(hrf[units], min(256, width(self.models))), self.options.threads)
        return np.asarray(np.concatenate(parts, axis=1).mean(axis=1, dtype=np.float64))

    def _ridge(self, hrf: NDArray[np.int16], found: list[Doubles]) -> Doubles:
        """(4, V) fraction, penalty, gain and offset of each unit."""
        out = np.zeros((4, hrf.size))
        cleaned = [model.cleaned(each) for model, each in zip(self.models, self._used(found), strict=True)]

        def look(item: tuple[int, Ints]) -> None:
            shape, units = item
            out[:, units] = self._fractions([model.regressors(shape) for model in cleaned], stacked(cleaned, units)[0])

        in_threads(look, group(hrf, width(cleaned)), self.options.threads)
        return out

    def _fractions(self, trials: list[Doubles], series: list[Floats]) -> Doubles:
        """(4, v) fraction, penalty, gain, offset of some units with the same shape."""
        solved = [np.linalg.eigh(x.T @ x) for x in trials]
        values = np.concatenate([each[0] for each in solved])
        turn = [each[1].astype(np.float32) for each in solved]
        rotated = np.concatenate([(x @ s[1]).T.astype(np.float32) @ y for x, s, y in zip(trials, solved, series, strict=True)])
        ends = np.cumsum([len(each) for each in turn])[:-1]

        def betas(penalty: Any) -> Floats:
            shrunk = rotated / (values[:, None].astype(np.float32) + np.asarray(penalty, dtype=np.float32))
            return np.concatenate([vectors @ part for vectors, part in zip(turn, np.split(shrunk, ends), strict=True)])

        plain = betas(0.0)
        grid = ridge.penalties(rotated, values, ridge.FRACTIONS)
        best = np.argmax([self.trials.agreement(betas(penalty)) for penalty in grid], axis=0)
        fraction = ridge.FRACTIONS[best]
        penalty = ridge.refine(rotated, values, fraction, grid[best, np.arange(best.size)])
        return np.array([fraction, penalty, *_line(betas(penalty), plain)])


def _line(shrunk: Floats, plain: Floats) -> tuple[Floats, Floats]:
    """Gain and offset (v,) of the least-squares line from ridge betas to those without; gain 1, offset 0 where it would fall."""
    left, right = shrunk.mean(axis=0), plain.mean(axis=0)
    size = np.einsum("nv,nv->v", shrunk - left, shrunk - left)
    joint = np.einsum("nv,nv->v", shrunk - left, plain - right)
    rises = (joint > 0) & (size > 0)
    gain = np.divide(joint, size, out=np.ones_like(joint), where=rises)
    return gain, np.where(rises, right - gain * left, 0.0).astype(np.float32)
