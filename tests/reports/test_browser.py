"""Pages in a real browser: they load nothing, log no fault, can be searched, sorted and turned by keys, and fit a phone."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.evaluation.statistics import PrimaryTest
from bids_brainlm.reports.page import GroupContent, PageContent, group_page, participant_page
from bids_brainlm.reports.turning import turning

_spec = importlib.util.spec_from_file_location("test_page", Path(__file__).with_name("test_page.py"))
plain: Any = importlib.util.module_from_spec(_spec)  # type: ignore[arg-type]
_spec.loader.exec_module(plain)  # type: ignore[union-attr]

EVIL = plain.EVIL
ROWS = "[...document.querySelectorAll('#decoded-rows tbody tr')]"
N = 12


def page() -> PageContent:
    """Everything that has script, and a text that would like to be some."""
    evidence = pd.DataFrame({"trial_id": [f"t{i}" for i in range(N)], "rank": [*range(1, N), 11.0], "n_brains": 12.0})
    evidence = evidence.assign(specificity=np.linspace(5, -3, N), information=np.nan, confidence=np.linspace(-1, 2, N))
    values = np.linspace(0, 1, 2 * 10242)
    made: PageContent = plain.content(n=N, text=f"a cat sleeps {EVIL}")
    maps = turning({"Height": values, "Depth": -values}, 10242)
    return dataclasses.replace(made, evidence=evidence, quality=made.training, turning=maps, doubts=(f"One doubt {EVIL}",))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    group = GroupContent("Group", tests={"sub-01": PrimaryTest(1.0, 0.01, 30, 99)}, doubts=(EVIL,))
    out = {"participant": folder / "sub-01.html", "group": folder / "group.html"}
    out["participant"].write_text(participant_page(page()), "utf-8")
    out["group"].write_text(group_page(group), "utf-8")
    return out


@pytest.mark.parametrize("kind", ["participant", "group"])
@pytest.mark.parametrize("width", [360, 1200])
def test_a_page_loads_nothing_and_fits(tab: Any, files: dict[str, Path], kind: str, width: int) -> None:
    tab.open(files[kind], width)
    assert tab.faults == []
    assert [url for url in tab.requests if not url.startswith("data:")] == [files[kind].as_uri()]
    assert tab.ask("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt.length > 20)")
    assert tab.ask("document.documentElement.scrollWidth") <= width
    assert tab.ask("typeof window.x") == "undefined"


@pytest.mark.parametrize("kind", ["participant", "group"])
def test_headings_go_down_by_one(tab: Any, files: dict[str, Path], kind: str) -> None:
    tab.open(files[kind])
    levels = tab.ask("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) <= 1


def test_search_leaves_the_rows_that_contain_what_is_typed(tab: Any, files: dict[str, Path]) -> None:
    tab.open(files["participant"])
    tab.ask("(b => { b.value = 'S3'; b.dispatchEvent(new Event('input')); })(document.querySelector('input[type=search]'))")
    assert tab.ask(f"{ROWS}.filter(r => !r.hidden).map(r => r.cells[0].textContent)") == ["s3"]
    assert tab.ask("document.querySelector('.finder output').textContent") == f"1 of {N} rows"


def cells(tab: Any, column: int) -> Any:
    return tab.ask(f"{ROWS}.map(r => +r.cells[{column}].dataset.sort)")


def test_headings_sort_by_number_there_and_back_by_keys_alone(tab: Any, files: dict[str, Path]) -> None:
    tab.open(files["participant"])
    headings = tab.ask("[...document.querySelectorAll('#decoded-rows thead th')].map(h => h.textContent)")
    column = headings.index("Confidence")
    tab.ask(f"document.querySelectorAll('#decoded-rows thead button')[{column}].focus()")
    tab.press("Enter")
    assert cells(tab, column) == sorted(cells(tab, column))
    tab.press("Enter")
    assert cells(tab, column) == sorted(cells(tab, column), reverse=True)
    head = f"document.querySelectorAll('#decoded-rows thead th')[{column}]"
    assert tab.ask(f"{head}.getAttribute('aria-sort')") == "descending"
    # Texts are sorted as text, and a number in them as a number.
    tab.ask("document.querySelector('#decoded-rows thead button').click()")
    assert tab.ask(f"{ROWS}.map(r => r.cells[0].textContent)") == [f"s{i}" for i in range(N)]


def test_the_brain_turns_by_keys_and_shows_what_is_chosen(tab: Any, files: dict[str, Path]) -> None:
    tab.open(files["participant"])
    if not tab.ask("!!document.createElement('canvas').getContext('webgl')"):
        assert tab.ask("getComputedStyle(document.querySelector('.brain')).display") == "none"
        pytest.skip("this Chromium has no WebGL")
    view = "document.querySelector('canvas').dataset.view"
    assert tab.ask(view) == "-65 15 both"
    tab.ask("document.querySelector('canvas').focus()")
    tab.press("ArrowLeft")
    tab.ask("new Promise(requestAnimationFrame)")
    assert tab.ask(view) == "-55 15 both"
    tab.ask("document.querySelector('[data-view=\"-90 0\"]').click()")
    assert tab.ask(view) == "-90 0 both"
    assert tab.ask("document.querySelector('.brain .high').textContent") == "0.99"
    tab.ask("(s => { s.value = '1'; s.dispatchEvent(new Event('change')); })(document.querySelector('[name=map]'))")
    assert tab.ask("document.querySelector('.brain .low').textContent") == "-0.99"


def drawn(tab: Any, side: str, view: str) -> np.ndarray[Any, Any]:
    """(h, w, 3) what is seen of a hemisphere."""
    tab.ask(f"(s => {{ s.value = '{side}'; s.dispatchEvent(new Event('change')); }})(document.querySelector('[name=side]'))")
    picture = f"""(() => {{
      document.querySelector('[data-view="{view}"]').click();
      const seen = document.createElement('canvas'), from = document.querySelector('.brain canvas');
      [seen.width, seen.height] = [150, 100];
      const flat = seen.getContext('2d');
      flat.drawImage(from, 0, 0, 150, 100);
      return [...flat.getImageData(0, 0, 150, 100).data];
    }})()"""
    return np.array(tab.ask(picture), dtype=float).reshape(100, 150, 4)[..., :3]


@pytest.mark.parametrize(("side", "lateral", "medial"), [("left", "-90 0", "90 0"), ("right", "90 0", "-90 0")])
def test_a_patch_is_seen_from_its_own_side(tab: Any, tmp_path: Path, side: str, lateral: str, medial: str) -> None:
    from bids_brainlm.reports.brains import cortex

    halves = [np.zeros(10242), np.zeros(10242)]
    number = ("left", "right").index(side)
    outward = cortex()[number].coordinates[:, 0] * (-1, 1)[number]
    front = cortex()[number].coordinates[:, 1] > 20
    halves[number][(outward > np.quantile(outward, 0.8)) & front] = 1.0
    path = tmp_path / "page.html"
    path.write_text(participant_page(dataclasses.replace(page(), turning=turning({"x": np.concatenate(halves)}, 10242))), "utf-8")
    tab.open(path)
    if not tab.ask("document.querySelector('.brain').classList.contains('on')"):
        pytest.skip("this Chromium has no WebGL")
    red = {view: (p[..., 0] > 80) & (p[..., 1] < 70) for view in (lateral, medial) for p in [drawn(tab, side, view)]}
    assert red[lateral].sum() > 100
    assert red[medial].sum() == 0
    # Seen from the left, what is in front lies to the left; from the right, to the right.
    across = np.flatnonzero(red[lateral].any(axis=0)).mean()
    assert (across < 75) == (side == "left")


def test_without_script_the_table_is_whole_and_nothing_is_dead(tab: Any, files: dict[str, Path]) -> None:
    tab.open(files["participant"], script=False)
    found = tab.send("DOM.getDocument", depth=0)["root"]["nodeId"]
    rows = tab.send("DOM.querySelectorAll", nodeId=found, selector="#decoded-rows tbody tr")["nodeIds"]
    assert len(rows) == N
    assert tab.send("DOM.querySelectorAll", nodeId=found, selector="th button")["nodeIds"] == []
    for hidden in (".finder", ".brain"):
        node = tab.send("DOM.querySelector", nodeId=found, selector=hidden)["nodeId"]
        tab.send("DOM.enable")
        tab.send("CSS.enable")
        style = tab.send("CSS.getComputedStyleForNode", nodeId=node)["computedStyle"]
        assert {one["name"]: one["value"] for one in style}["display"] == "none"


def test_contrast_of_all_text_is_enough(tab: Any, files: dict[str, Path]) -> None:
    """At least 4.5 to 1 (WCAG AA) against the background that it stands on."""
    tab.open(files["participant"])
    pairs = tab.ask("""(() => {
      const out = new Set();
      const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
        if (!c.endsWith(', 0)')) return c; } return 'rgb(255, 255, 255)'; };
      for (const e of document.body.querySelectorAll('*')) {
        if ([...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.checkVisibility())
          out.add(getComputedStyle(e).color + '|' + ground(e));
      }
      return [...out];
    })()""")
    assert len(pairs) > 3
    for pair in pairs:
        one, other = sorted(_luminance(colour) for colour in pair.split("|"))
        assert (other + 0.05) / (one + 0.05) >= 4.5, pair


def _luminance(colour: str) -> float:
    levels = [float(x) / 255 for x in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in levels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
