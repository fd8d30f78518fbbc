"""An encoding model: from words to brains, and from there how likely a brain is given a text (after Tang et al. 2023).

- The *meaning* of a token is the hidden state of the language model that has just read it, after the last tokens of the text
  before it, less the mean over training. A window is the sum of its tokens' meanings, and their number.
- A volume is predicted from the windows of the `SECONDS` before it (delays 1 to d) by ridge regression, on the leading principal
  components of meanings. Each unit (vertex or voxel) has its own penalty, chosen by held-out stories of the training set; the
  units that are predicted best are used, and none that is predicted no better than by its mean (`regression`).
- The *noise* is what held-out stories leave unexplained; its covariance is shrunk to a multiple of the identity by as much as
  Ledoit and Wolf (2004) find best.
- Predictions from few stories are too sure of themselves, and more so where many units were chosen from. They are scaled by the
  *trust* that they deserve: the slope with which stories follow what is predicted for them that neither fit nor choice has seen.
- The log-likelihood of a brain takes what a text does not say yet for mean meaning, so that a volume bears on a text before
  all windows behind it are written. Constants that all texts share are left out. That noise goes on from volume to volume is not
  modelled: likelihoods are too sure of themselves, for all texts alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg
from torch import Tensor

from bids_brainlm.core.types import Ints, Recording
from bids_brainlm.evaluation.story.reading import Reader
from bids_brainlm.evaluation.story.regression import N_FOLDS, regress, signals, trust
from bids_brainlm.evaluation.story.tellings import Stretch, Telling, by_story

Array = NDArray[np.float64]

SECONDS = 8.0
"""How long before a volume words may bear on it: delays 1 to 4 at windows of 2 s, as in Tang et al. 2023."""

COMPONENTS = 256
"""Most principal components of meanings."""

AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Encoding:
    """From meanings to whitened responses.

    Parameters
    ----------
    centre : (D,) float64
        Mean hidden state.
    meaning : (d, D, U) float64
        Whitened response to one unit of meaning, by delay in windows, times the trust in it.
    number : (d, U) float64
        To one token.
    rest : (U,) float64
        Without words.
    white : (U, U) float64
        Takes responses to where noise is independent and of variance 1.
    units : (U,) int64
        Columns of the recording.
    usual : float
        Mean number of tokens a window.
    """

    centre: Array
    meaning: Array
    number: Array
    rest: Array
    white: Array
    units: Ints
    usual: float

    @property
    def n_delays(self) -> int:
        return len(self.meaning)


def fit(
    reader: Reader, recording: Recording, tellings: Sequence[Telling], tokens: Sequence[Sequence[list[int]]],
    held: Ints, *, context: int, seconds: float,
) -> Encoding:  # fmt: skip
    """Fit the encoding model to training windows.

    Parameters
    ----------
    reader : Reader
    recording : Recording
    tellings : sequence of Telling
        Divided into parts.
    tokens : sequence of sequence (w) of list of int
        Tokens of every window of each telling; only those of training windows are looked at.
    held : (.,) int64
        Rows of the recording that nothing may be fitted on.
    context : int
        Tokens before a window that the language model sees.
    seconds : float
        Length of a window.

    Raises
    ------
    ValueError
        When there are fewer volumes than `N_FOLDS`.
    """
    n_delays = max(1, int(np.ceil(SECONDS / seconds)))
    sums, numbers = zip(
        *(_summed(reader, telling, own, context) for telling, own in zip(tellings, tokens, strict=True)), strict=True
    )
    total = max(1, sum(int(n.sum()) for n in numbers))
    centre = np.sum([s.sum(axis=0) for s in sums], axis=0) / total
    meanings = [s - n[:, None] * centre for s, n in zip(sums, numbers, strict=True)]
    basis = _basis(np.concatenate(meanings))
    features = [np.column_stack([m @ basis, n]) for m, n in zip(meanings, numbers, strict=True)]
    volumes = [_volumes(telling, held, n_delays) for telling in tellings]
    design = np.concatenate([_delayed(f, t.window[v], n_delays) for f, t, v in zip(features, tellings, volumes, strict=True)])
    rows = np.concatenate([t.volumes[v] for t, v in zip(tellings, volumes, strict=True)])
    if len(rows) < N_FOLDS:
        raise ValueError(f"{len(rows)} volumes to fit an encoding model to; expected {N_FOLDS} at least")
    labels = by_story(tellings, {i: tellings[i].window[v] - 1 for i, v in enumerate(volumes)})
    groups = np.unique(labels, return_inverse=True)[1]
    means = np.arange(design.shape[1]) % (basis.shape[1] + 1) < basis.shape[1]
    found = regress(design, groups, recording, rows)
    weights = found.weights.reshape(n_delays, -1, found.units.size)
    meaning = trust(design, groups, recording, rows, means) * np.einsum("rc,dcu->dru", basis, weights[:, :-1])
    spoken = np.concatenate([n[t.part == "train"] for n, t in zip(numbers, tellings, strict=True)])
    return Encoding(centre, meaning, weights[:, -1], found.rest, found.white, found.units, float(spoken.mean()))


def _summed(reader: Reader, telling: Telling, tokens: Sequence[list[int]], context: int) -> tuple[Array, Array]:
    """Sum (w, D) of hidden states and number (w,) of tokens of training windows; 0 elsewhere."""
    width = int(reader.model.llm.get_input_embeddings().weight.shape[1])
    sums, numbers = np.zeros((len(tokens), width)), np.zeros(len(tokens))
    sequences = list(_sequences(telling, tokens, context))
    for start in range(0, len(sequences), AT_ONCE):
        some = sequences[start : start + AT_ONCE]
        longest = max(len(before) + len(own) for _, before, own in some)
        ids, mask, new = (np.zeros((len(some), longest), np.int64) for _ in range(3))
        for i, (_, before, own) in enumerate(some):
            ids[i, : len(before) + len(own)] = before + own
            mask[i, : len(before) + len(own)] = 1
            new[i, len(before) : len(before) + len(own)] = 1
        hidden = reader.hidden(torch.from_numpy(ids), torch.from_numpy(mask).to(reader.model.device)).cpu().double().numpy()
        sums[[k for k, _, _ in some]] = np.einsum("blr,bl->br", hidden, new)
        numbers[[k for k, _, _ in some]] = new.sum(axis=1)
    return sums, numbers


def _sequences(telling: Telling, tokens: Sequence[list[int]], context: int) -> Iterator[tuple[int, list[int], list[int]]]:
    """Training windows with words: number, tokens before, and own tokens; nothing held out stands before."""
    before: list[int] = []
    for k, own in enumerate(tokens):
        before = before if telling.part[k] == "train" else []
        if own and telling.part[k] == "train":
            yield k, before[-context:], list(own)
            before = before + list(own)


def _basis(meanings: Array) -> Array:
    """(D, c) leading directions of meanings."""
    _, _, directions = linalg.svd(meanings, full_matrices=False)
    return np.asarray(directions[:COMPONENTS].T)


def _volumes(telling: Telling, held: Ints, n_delays: int) -> Ints:
    """Volumes of the run that only training windows of the story, and at least one, bear on."""
    learned = np.concatenate([np.ones(n_delays, bool), telling.part == "train", np.ones(n_delays, bool)])
    n = len(telling.texts)
    near = (telling.window >= 1) & (telling.window < n + n_delays) & ~np.isin(telling.volumes, held)
    index = np.flatnonzero(near)
    behind = telling.window[index, None] - 1 - np.arange(n_delays) + n_delays
    return np.asarray(index[learned[behind].all(axis=1) & bool((telling.part == "train").any())])


def _delayed(features: Array, window: Ints, n_delays: int) -> Array:
    """(m, d c) features (w, c) of the windows 1, ..., d before each volume's; 0 beyond the story."""
    padded = np.pad(features, ((n_delays, n_delays), (0, 0)))
    return np.concatenate([padded[window - delay + n_delays] for delay in range(1, n_delays + 1)], axis=1)


@dataclass(frozen=True, eq=False)
class Memory:
    """What B texts have said to the brain so far.

    Parameters
    ----------
    window : int
        Windows that were entered.
    expected : (B, d, U) Tensor
        Whitened responses to their meanings in the next d windows.
    finished : (B,) float64 Tensor
        Log-likelihood of the volumes that no later word bears on.
    """

    window: int
    expected: Tensor
    finished: Tensor


class BrainEvidence:
    """`search.Evidence` from an encoding model: how likely the volumes of a stretch are given texts.

    Parameters
    ----------
    encoding : Encoding
    reader : Reader
    recording : Recording
    stretch : Stretch
    counts : sequence of int
        Tokens of each of its windows.
    """

    def __init__(self, encoding: Encoding, reader: Reader, recording: Recording, stretch: Stretch, counts: Sequence[int]) -> None:
        self.device, telling, n_delays = reader.model.device, stretch.telling, encoding.n_delays
        n_windows = len(stretch.windows)
        numbers = np.full(len(telling.texts), encoding.usual)
        numbers[stretch.first : stretch.last] = counts
        near = (telling.window >= stretch.first) & (telling.window < stretch.last + n_delays)
        window = telling.window[near]
        spoken = _delayed(numbers[:, None], window, n_delays)
        found = signals(recording, telling.volumes[near], encoding.units) @ encoding.white.T
        found -= encoding.rest + spoken @ encoding.number
        # Of volumes taken in one window, which all texts predict alike, only number and sum matter.
        self.number = np.bincount(window - stretch.first, minlength=n_windows + n_delays)
        total = np.zeros((n_windows + n_delays, found.shape[1]))
        np.add.at(total, window - stretch.first, found)
        self.total = torch.from_numpy(total).to(self.device)
        self.meaning = torch.from_numpy(encoding.meaning).to(self.device)
        self.centre = torch.from_numpy(encoding.centre).to(self.device)

    def begin(self) -> Memory:
        n_delays, _, n_units = self.meaning.shape
        zeros = torch.zeros(1, n_delays, n_units, dtype=torch.float64, device=self.device)
        return Memory(0, zeros, torch.zeros(1, dtype=torch.float64, device=self.device))

    def enter(self, memory: Memory) -> Memory:
        finished = memory.finished
        if memory.window:
            finished = finished + self._likelihood(memory.window, memory.expected[:, 0])
        expected = torch.cat([memory.expected[:, 1:], torch.zeros_like(memory.expected[:, :1])], dim=1)
        return Memory(memory.window + 1, expected, finished)

    def read(self, memory: Memory, parents: Tensor, hidden: Tensor) -> tuple[Memory, Tensor]:
        meant = hidden.double() - self.centre
        expected = memory.expected[parents] + torch.einsum("nr,dru->ndu", meant, self.meaning)
        likelihood = memory.finished[parents]
        for delay in range(expected.shape[1]):
            likelihood = likelihood + self._likelihood(memory.window + delay, expected[:, delay])
        return Memory(memory.window, expected, memory.finished[parents]), likelihood

    def keep(self, memory: Memory, rows: Tensor) -> Memory:
        return Memory(memory.window, memory.expected[rows], memory.finished[rows])

    def _likelihood(self, window: int, expected: Tensor) -> Tensor:
        """(B,) log-likelihood of the volumes in a window (from the first of the stretch) given expected responses (B, U)."""
        return expected @ self.total[window] - 0.5 * int(self.number[window]) * (expected**2).sum(dim=1)
