"""Whole stories on a page: planted texts are told from blind ones in words, figures and tables, and text stays text."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.config import Request, load
from bids_brainlm.evaluation.metrics import get
from bids_brainlm.evaluation.story.comparison import RATE, figures
from bids_brainlm.io.files import write_tsv
from bids_brainlm.reports.page import GroupContent, PageContent, group_page, participant_page
from bids_brainlm.reports.stories import ALONE, band, long_texts, read_group, read_stories, verdict

EVIL = "<script>alert(1)</script>"
N_WINDOWS, N_NULL = 160, 3


def told(decoders: tuple[str, ...], seed: int = 0) -> pd.DataFrame:
    """Two stories in windows of 2 s; ``knows`` names one word of each window, ``blind`` words that are drawn."""
    rng = np.random.default_rng(seed)
    rows = []
    for story in ("hare", "owl"):
        said = [f"{rng.choice(list('abcdefghij'))}x word{k} {EVIL if k == 3 else ''}".strip() for k in range(N_WINDOWS)]
        for decoder, draw in [*((name, 0) for name in decoders), *(("", 1 + i) for i in range(N_NULL))]:
            own = [text.split()[0] if decoder == "knows" else f"{rng.choice(list('abcdefghij'))}x" for text in said]
            rows += [(story, "r", 0, decoder, draw, k, 2.0 * k, 2.0, said[k], own[k]) for k in range(N_WINDOWS)]
    names = ["story", "run", "fold", "decoder", "draw", "window", "onset", "words_pred", "text_true", "text_pred"]
    return pd.DataFrame(rows, columns=names)


def scored(table: pd.DataFrame) -> pd.DataFrame:
    metrics = [get("wer"), get("bleu1")]
    return figures(table, metrics, seconds=2.0, longer=20.0, overlap=16.0, permutations=300, seed=0)


def write(request: Request, participant: str, table: pd.DataFrame) -> None:
    """The files of stage story, and its stamp."""
    folder, outputs = request.out_dir / f"sub-{participant}" / "beh", {}
    for desc, content in (("reconstruction", table), ("story", scored(table))):
        path = write_tsv(folder / f"sub-{participant}_task-x_desc-{desc}_beh.tsv", content)
        outputs[str(path.relative_to(request.out_dir))] = path.stat().st_size
    stamp = request.out_dir / "logs" / "stages" / f"sub-{participant}_story.json"
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(json.dumps({"key": "x", "outputs": outputs}))


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> Request:
    """Stories of two participants: one decoder knows words of 01, none of 02; 03 has no stories."""
    root = tmp_path_factory.mktemp("stories")
    config = load("brainllm-small", overrides={"window.words": "table"})
    folders = {"bids_dir": root, "out_dir": root / "out", "work_dir": root}
    request = Request(**folders, level="participant", participants=(), derivatives={}, config=config)
    write(request, "01", told(("blind", "knows")))
    write(request, "02", told(("blind",), seed=5))
    return request


def test_a_decoder_that_knows_words_is_named_and_a_blind_one_is_not(request_: Request) -> None:
    first, second = read_stories(request_, "01"), read_stories(request_, "02")
    assert first is not None
    assert second is not None
    assert first.verdict.startswith("knows does better than the shifts")
    assert second.verdict.startswith("No decoder does better than the shifts")
    assert "nothing here says that the words came from the brain" in second.verdict
    assert read_stories(request_, "03") is None


def test_the_table_has_all_stories_first_and_every_figure_beside_its_nulls(request_: Request) -> None:
    found = read_stories(request_, "01")
    assert found is not None
    assert found.metrics == ("Word error rate (lower is better)", "BLEU-1", "Correlation")
    wanted = [(whose, name) for whose in ("2 stories together", "hare", "owl") for name in ("blind", "knows", RATE)]
    assert [(row.whose, row.decoder) for row in found.scores] == wanted
    table = scored(told(("blind", "knows"))).set_index(["story", "decoder", "metric"])
    expected = table.loc["owl", "knows", "bleu1"]
    (cell,) = [row.cells[1] for row in found.scores if (row.whose, row.decoder) == ("owl", "knows")]
    assert cell.value == f"{expected['value']:.3f}"
    assert cell.nulls == f"null texts {expected['null']:.3f}, shifts {expected['shifted']:.3f}"
    assert float(cell.p.removeprefix("p = ")) == pytest.approx(expected["p"], abs=6e-4)
    assert not found.scores[2].cells[0].value  # the word rate has a correlation alone


def test_texts_of_long_windows_stand_beside_what_was_said(request_: Request) -> None:
    table = told(("blind", "knows"))
    joined = long_texts(table.replace("", None), 2.0, 20.0)
    assert len(joined) == 2 * (2 + N_NULL) * N_WINDOWS // 10
    row = joined[(joined["story"] == "owl") & (joined["decoder"] == "knows") & (joined["number"] == 4)].iloc[0]
    own = table[(table["story"] == "owl") & (table["decoder"] == "knows") & table["window"].between(40, 49)]
    assert (row["said"], row["text"]) == (" ".join(own["text_true"]), " ".join(own["text_pred"]))
    found = read_stories(request_, "01")
    assert found is not None
    assert (found.columns, found.n_windows, found.n_null) == (("blind", "knows", ALONE), 2 * N_WINDOWS // 10, N_NULL)
    assert (found.texts[0].story, found.texts[0].time) == ("hare", "0 to 20 s")
    assert found.texts[0].texts[1] == " ".join(table[table["decoder"] == "knows"]["text_pred"][:10])


def test_the_band_is_that_of_the_allowed_shifts() -> None:
    scores = np.random.default_rng(0).random((9, 9))
    low, high = band(scores, 3)
    for window in range(9):
        far = [scores[(window + shift) % 9, window] for shift in (3, 4, 5, 6)]
        assert (low[window], high[window]) == pytest.approx(np.quantile(far, [0.05, 0.95]))
    assert np.isnan(band(scores, 5)).all()


@pytest.mark.parametrize(
    ("p", "said"),
    [
        ([np.nan, np.nan], "No decoder could be tested"),
        ([0.2, 0.3], "No decoder does better than the shifts (smallest p = .200 of 2 tests)"),
        ([0.04, 0.3], "No decoder does better than the shifts, the number of tests allowed for (smallest p = .040 of 2 tests)"),
        ([0.01, 0.3], "a does better than the shifts, the number of tests allowed for (smallest p = .010"),
        ([0.01, 0.02], "a and b do better than the shifts"),
    ],
)
def test_the_verdict_counts_the_tests(p: list[float], said: str) -> None:
    rows = pd.DataFrame({"story": ["all", "all", "all", "hare"], "decoder": ["a", "b", RATE, "a"], "p": [*p, 1e-4, 1e-4]})
    assert verdict(rows.assign(n_shifts=300)).startswith(said)


def test_few_shifts_are_not_taken_for_nothing_found() -> None:
    rows = pd.DataFrame({"story": "all", "decoder": ["a", "b"], "p": [0.2, 0.5], "n_shifts": [9, 9]})
    assert verdict(rows).endswith("with 9 shifts p cannot be below .100: more or longer test stories are needed.")
    # 1 / 40 is just small enough for two tests.
    assert "nothing here says" in verdict(rows.assign(n_shifts=39))
    assert "nothing here says" not in verdict(rows.assign(n_shifts=38))


def test_pages_show_stories_as_text(request_: Request) -> None:
    html = participant_page(PageContent("sub-01", stories=read_stories(request_, "01")))
    assert '<a href="#stories">' in html
    assert "knows does better than the shifts" in html
    assert EVIL not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    group = read_group(request_, ["01", "02", "03"])
    assert group is not None
    assert group.verdict.startswith("In 1 of 2 participants with enough shifts a decoder does better than these")
    assert [row.whose for row in group.scores] == ["sub-01"] * 3 + ["sub-02"] * 2
    assert group.verdict[:40] in group_page(GroupContent("Group", stories=group))
    assert read_group(request_, ["03"]) is None
    assert "#stories" not in participant_page(PageContent("sub-03"))


def test_the_figure_follows_the_texts(request_: Request) -> None:
    found = read_stories(request_, "01")
    assert found is not None
    assert found.figure is not None
    means = {name: float(found.figure.alt.split(f"{name}: ")[1].split(";")[0].rstrip(".")) for name in ("blind", "knows")}
    assert means["knows"] > means["blind"]
    assert len(found.figure.image) < 100_000
