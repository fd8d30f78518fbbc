"""Whole stories on the pages of reports: how good they are beside two nulls, and their text beside what was said.

*Null texts* are drawn from the language model alone, at the word rate that was told from the brain. *Shifts* pair the text of a
window with what was said at another time of its story; they decide (`bids_brainlm.evaluation.story.comparison`). The page shows
both for every decoder, and says in words whether any decoder does better than the shifts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_brainlm.config import Request
from bids_brainlm.evaluation.metrics import get
from bids_brainlm.evaluation.statistics import ALPHA, format_p
from bids_brainlm.evaluation.story.comparison import ALL, RATE, long_windows, score_pairs, smallest_shift
from bids_brainlm.io.files import read_tsv
from bids_brainlm.reports import figures
from bids_brainlm.reports.figures import Course
from bids_brainlm.reports.panels import Panel, drawing
from bids_brainlm.reports.tables import as_numbers
from bids_brainlm.reports.titles import title
from bids_brainlm.stages.outputs import find_beh
from bids_brainlm.stages.windows import overlap

MAX_TEXTS = 12
"""Long windows whose text is shown on a page; the file has all."""

DRAWN = "bleu1"
"""Metric of the figure: unlike the word error rate it is not near its worst value all the time."""

ALONE = "Language model alone"
"""Heading of the first null text."""

PLACE = ["story", "run", "number"]
"""Columns that a long window is known by."""

TOO_SHORT = (
    "No decoder could be tested: the test stories are too few or too short for enough shifts. Whether the words came from the "
    "brain is not known."
)


@dataclass(frozen=True)
class Cell:
    """A figure of merit of a decoder, beside its nulls; empty strings where there is none."""

    value: str = ""
    nulls: str = ""
    p: str = ""


@dataclass(frozen=True)
class ScoreRow:
    """One line of the table: whose, by what decoder (or the word rate), and a cell for each metric."""

    whose: str
    decoder: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class TextRow:
    """What was said in a long window, and a text of it for each of `StoryContent.columns`."""

    story: str
    time: str
    said: str
    texts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class StoryContent:
    """What a page says of whole stories.

    Parameters
    ----------
    verdict : str
        Whether any decoder does better than the shifts, in words.
    rate : str
        How well the number of words is told.
    metrics : tuple of str
        Names for people, one a column of the scores.
    scores : tuple of ScoreRow
    figure : Panel or None
    columns : tuple of str
        Decoders, and the language model alone.
    texts : tuple of TextRow
    n_windows, n_null : int
        Long windows that there are; null texts a story.
    seconds : float
        Length of a long window.
    file : str
        Path of the table of texts relative to the page.
    """

    verdict: str
    rate: str
    metrics: tuple[str, ...]
    scores: tuple[ScoreRow, ...]
    figure: Panel | None = None
    columns: tuple[str, ...] = ()
    texts: tuple[TextRow, ...] = ()
    n_windows: int = 0
    n_null: int = 0
    seconds: float = 0.0
    file: str = ""


def read_stories(request: Request, participant: str) -> StoryContent | None:
    """Reconstructed stories of a participant, from the tables of stage story; None where there are none."""
    scores, path = _scores(request, participant), find_beh(request, participant, "reconstruction")
    if scores is None or path is None:
        return None
    told, window, longer = read_tsv(path), request.config.window, request.config.story.seconds
    joined = long_texts(told, window.seconds, longer)
    metrics, rows = _table(_by_story(scores))
    return StoryContent(
        verdict=verdict(scores),
        rate=_rate(scores, window.seconds),
        metrics=metrics,
        scores=rows,
        figure=_figure(joined, smallest_shift(overlap(window), longer), longer),
        columns=(*joined.loc[joined["draw"] == 0, "decoder"].unique(), ALONE),
        texts=_texts(joined, longer),
        n_windows=len(joined[PLACE].drop_duplicates()),
        n_null=int(pd.to_numeric(told["draw"]).max()),
        seconds=longer,
        file=str(path.relative_to(request.out_dir)),
    )


def read_group(request: Request, participants: Sequence[str]) -> StoryContent | None:
    """The same for all participants (labels), without texts; None where nobody has any."""
    found = {who: scores for who in participants if (scores := _scores(request, who)) is not None}
    if not found:
        return None
    tested = [scores for scores in found.values() if _testable(_tests(scores))]
    better = sum(bool(_better(scores)) for scores in tested)
    several = f"{len(tested)} participant{'s' * (len(tested) > 1)} with enough shifts"
    said = f"In {better} of {several} a decoder does better than these (p at most {ALPHA:g}, the number of tests allowed for)."
    metrics, rows = _table({f"sub-{who}": scores[scores["story"] == ALL] for who, scores in found.items()})
    return StoryContent(said if tested else TOO_SHORT, "", metrics, rows, seconds=request.config.story.seconds)


def verdict(scores: pd.DataFrame) -> str:
    """Whether any decoder does better than the shifts over all stories, in words.

    Parameters
    ----------
    scores : DataFrame
        Columns `bids_brainlm.evaluation.story.comparison.STORY_COLUMNS`, with numbers.
    """
    tests = _tests(scores)
    if tests.empty:
        return TOO_SHORT
    smallest = f"smallest p = {format_p(tests['p'].min())} of {len(tests)} test{'s' * (len(tests) > 1)}"
    better = _better(scores)
    if better:
        names = " and ".join(better) + (" does" if len(better) == 1 else " do")
        return f"{names} better than the shifts, the number of tests allowed for ({smallest})."
    if not _testable(tests):
        n_shifts = int(tests["n_shifts"].max())
        why = f"with {n_shifts} shifts p cannot be below {format_p(_finest(tests))}: more or longer test stories are needed"
        return f"No decoder could be shown to do better than the shifts ({smallest}); {why}."
    but = ", the number of tests allowed for" if tests["p"].min() <= ALPHA else ""
    return f"No decoder does better than the shifts{but} ({smallest}): nothing here says that the words came from the brain."


def _tests(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows of decoders over all stories that have a p."""
    return scores[(scores["story"] == ALL) & (scores["decoder"] != RATE) & scores["p"].notna()]


def _finest(tests: pd.DataFrame) -> float:
    """Smallest p that there could be."""
    return float(1 / (tests["n_shifts"].max() + 1))


def _testable(tests: pd.DataFrame) -> bool:
    """Whether there are shifts enough for any p to stand the number of tests."""
    return not tests.empty and _finest(tests) * len(tests) <= ALPHA


def _better(scores: pd.DataFrame) -> list[str]:
    """Decoders whose smallest p stands the number of tests (Bonferroni)."""
    tests = _tests(scores)
    return list(dict.fromkeys(tests.loc[tests["p"] * len(tests) <= ALPHA, "decoder"]))


def _rate(scores: pd.DataFrame, seconds: float) -> str:
    row = scores[(scores["story"] == ALL) & (scores["decoder"] == RATE)].iloc[0]
    told = f"Correlation of the number of words expected in a window of {seconds:g} s with that of words said: {row['value']:.2f}"
    if pd.isna(row["p"]):
        return f"{told}; no shift is far enough for a test."
    failed = " Where this fails, words stand in the wrong places, which no decoder can mend." if row["p"] > ALPHA else ""
    return f"{told} (p = {format_p(row['p'])}).{failed}"


def _scores(request: Request, participant: str) -> pd.DataFrame | None:
    path = find_beh(request, participant, "story")
    if path is None:
        return None
    return as_numbers(read_tsv(path), texts=("story", "decoder", "metric"))


def _by_story(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows of all stories first; of a single story there is nothing to add up."""
    stories = {str(story): part for story, part in scores.groupby("story", sort=False)}
    everything = stories.pop(ALL)
    return stories if len(stories) == 1 else {f"{len(stories)} stories together": everything, **stories}


def _table(parts: Mapping[str, pd.DataFrame]) -> tuple[tuple[str, ...], tuple[ScoreRow, ...]]:
    """Names of the metrics, and a row for each part and decoder."""
    metrics = dict.fromkeys(name for part in parts.values() for name in part["metric"])
    rows = []
    for whose, part in parts.items():
        for decoder, own in part.groupby("decoder", sort=False):
            by_metric = own.set_index("metric")
            cells = tuple(_cell(by_metric.loc[name]) if name in by_metric.index else Cell() for name in metrics)
            rows.append(ScoreRow(whose, str(decoder), cells))
    return tuple(title(name) + (" (lower is better)" if name == "wer" else "") for name in metrics), tuple(rows)


def _cell(row: pd.Series) -> Cell:
    nulls = [f"{name} {row[key]:.3f}" for name, key in (("null texts", "null"), ("shifts", "shifted")) if pd.notna(row[key])]
    return Cell(f"{row['value']:.3f}", ", ".join(nulls), "no p" if pd.isna(row["p"]) else f"p = {format_p(row['p'])}")


def long_texts(told: pd.DataFrame, seconds: float, longer: float) -> pd.DataFrame:
    """Texts of the long windows in which somebody speaks.

    Parameters
    ----------
    told : DataFrame
        A table of reconstructed texts (`bids_brainlm.stages.story.RECONSTRUCTION_COLUMNS`), as it is read.
    seconds, longer : float
        Lengths of windows in s: of the table, of long ones.

    Returns
    -------
    DataFrame
        Columns story, run, decoder (empty for null texts), draw, number (of the long window), said, text; in order of time.
    """
    told = told.fillna({"text_true": "", "text_pred": "", "decoder": ""})
    told = told.assign(**{name: pd.to_numeric(told[name]) for name in ("draw", "window")}).sort_values("window", kind="stable")
    rows = []
    for key, part in told.groupby(["story", "run", "decoder", "draw"], sort=False):
        said, texts = (
            long_windows(part["window"].tolist(), part[name].tolist(), seconds, longer) for name in ("text_true", "text_pred")
        )
        rows += [(*key, number, words, texts[number]) for number, words in said.items() if words]
    return pd.DataFrame(rows, columns=["story", "run", "decoder", "draw", "number", "said", "text"])


def _texts(joined: pd.DataFrame, longer: float) -> tuple[TextRow, ...]:
    """Windows evenly spaced over all stories, not chosen by result."""
    shown = joined[joined["draw"] <= 1]
    places = shown[PLACE].drop_duplicates().sort_values(["story", "run", "number"])
    some = np.unique(np.linspace(0, len(places) - 1, min(MAX_TEXTS, len(places))).round().astype(int))
    by_place = shown.groupby(PLACE, sort=False)
    rows = []
    for story, run, number in places.iloc[some].itertuples(index=False):
        part = by_place.get_group((story, run, number)).sort_values("draw", kind="stable")
        time = f"{number * longer:g} to {(number + 1) * longer:g} s"
        rows.append(TextRow(story, time, part["said"].iloc[0], tuple(part["text"])))
    return tuple(rows)


def _figure(joined: pd.DataFrame, lag: int, longer: float) -> Panel | None:
    """The metric over the longest telling; None where every telling has but one long window."""
    counts = joined[joined["draw"] == 0].groupby(["story", "run"], sort=False)["number"].nunique()
    if counts.empty or counts.max() < 2:
        return None
    story, run = counts.idxmax()
    own = joined[(joined["story"] == story) & (joined["run"] == run)]
    nulls = own[own["draw"] > 0].groupby("draw")
    alone = np.mean([get(DRAWN)(part["text"].tolist(), [(one,) for one in part["said"]]) for _, part in nulls], axis=0)
    courses = {str(name): _course(part, lag, alone) for name, part in own[own["draw"] == 0].groupby("decoder", sort=False)}
    at = (own.loc[own["draw"] == 0, "number"].drop_duplicates().to_numpy() + 0.5) * longer
    means = "; ".join(f"{name}: {course.scores.mean():.2f}" for name, course in courses.items())
    name = title(DRAWN)
    caption = (
        f"{name} of each {longer:g} s of {story}. Grey: middle 90 % of what texts of other times score for what was said then "
        "(the shifts). Dotted: mean of the null texts. A decoder that follows the story stays above the grey. A window at the "
        "very start is not tested: how stories begin is known without a brain."
    )
    alt = f"{name} over the time of {story}, with the range of the shifts. Means: {means}; null texts: {alone.mean():.2f}."
    return drawing("stories", figures.story_figure(at, courses, name), alt, caption)


def _course(part: pd.DataFrame, lag: int, alone: NDArray[np.float64]) -> Course:
    """Scores of a decoder over a story."""
    scores = score_pairs(get(DRAWN), part["text"].tolist(), part["said"].tolist())
    low, high = np.full((2, len(scores)), np.nan)
    first = int(part["number"].iloc[0] == 0)
    low[first:], high[first:] = band(scores[first:, first:], lag)
    return Course(np.diag(scores), low, high, alone)


def band(scores: NDArray[np.float64], lag: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middle 90 % of what texts of other times score in each window.

    Parameters
    ----------
    scores : (n, n) float64
        Of the text of window i for what was said in window j.
    lag : int
        Smallest circular shift, in windows.

    Returns
    -------
    low, high : (n,) float64
        nan where no shift is allowed.
    """
    n = len(scores)
    shift = (np.arange(n)[:, None] - np.arange(n)) % n
    far = (shift >= lag) & (shift <= n - lag)
    if not far.any():
        return np.full(n, np.nan), np.full(n, np.nan)
    low, high = np.nanquantile(np.where(far, scores, np.nan), [0.05, 0.95], axis=0)
    return low, high
