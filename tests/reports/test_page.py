"""A page says first what matters, shows text as text, and loads nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from bids_brainlm.evaluation.matrix import Evidence
from bids_brainlm.evaluation.metrics import chosen
from bids_brainlm.evaluation.statistics import PrimaryTest
from bids_brainlm.evaluation.table import Predictions, Sampling, primary_of, summary
from bids_brainlm.reports import panels
from bids_brainlm.reports.decoded import MAX_ROWS
from bids_brainlm.reports.methods import MethodFacts, method_text
from bids_brainlm.reports.page import GroupContent, PageContent, group_page, markdown, participant_page

EVIL = "<script>alert('x')</script><img src=http://evil.example/x.png> & a dog"
VOID = {"meta", "img", "input", "link", "br"}


class Page(HTMLParser):
    """Tags of a page with their attributes, the text in reading order, and whether tags are balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open and self.open[-1] not in ("style", "script", "title"):
            self.texts.append(data.strip())


def predictions(n: int = 12, text: str = "a cat sleeps", gain: float = 3.0) -> Predictions:
    frame = pd.DataFrame(
        {"trial_id": [f"t{i}" for i in range(n)], "stimulus_id": [f"s{i}" for i in range(n)], "fold": 0, "n_tokens": 4}
    )
    frame = frame.assign(prompt="What is it?", group=frame["stimulus_id"], text_true="a dog sleeps | a dog", text_pred=text)
    nll = 9 + np.arange(n) / n
    parts = [frame.assign(condition=c, nll=nll - (gain if c == "true" else 0)) for c in ("true", "permuted", "none")]
    return Predictions(pd.concat(parts, ignore_index=True))


def content(n: int = 12, text: str = "a cat sleeps", gain: float = 3.0, errors: tuple[str, ...] = ()) -> PageContent:
    made = predictions(n, text, gain)
    noise = np.random.default_rng(0).normal(0, 1, (99, n))
    permuted = made.of("permuted").nll
    evidence = Evidence(permuted + noise, permuted - made.of("true").nll, np.full(n, 9), {})
    table = summary(made, chosen(["rouge_l", "wer"]), evidence, sampling=Sampling(100, 100))
    history = pd.DataFrame({"phase": "one", "epoch": [0, 1], "train_loss": [2.0, 1.0], "validation_loss": [2.0, 1.5]})
    return PageContent(
        title="sub-01",
        errors=errors,
        test=primary_of(table, 99),
        predictions=made,
        summary=table,
        metrics=(panels.metrics(table),),
        training=(panels.training(history),),
        decoded_file="beh/sub-01_desc-decoded_beh.tsv",
        methods=method_text(MethodFacts(participant="sub-01", n_permutations=99, llm="org/model")),
        settings='[run]\nseed = "<42>"',
        provenance=(("Command", "bids_brainlm <in> out participant"),),
    )


def test_the_first_line_is_the_verdict() -> None:
    html = participant_page(content())
    assert Page(html).texts[0].startswith("The text depends on the brain: ")
    assert "p = .010" in Page(html).texts[0]


def test_without_an_effect_the_page_says_so() -> None:
    first = Page(participant_page(content(gain=0.0))).texts[0]
    assert first.startswith("No evidence that the text came from the brain: ")
    test = PrimaryTest(effect=0.1, p_value=0.06, n=20, n_permutations=99)
    assert Page(participant_page(PageContent("sub-01", test=test))).texts[0].startswith("No evidence")
    assert Page(participant_page(PageContent("sub-01"))).texts[0].startswith("No primary test")


def test_errors_come_first_and_the_verdict_stays() -> None:
    page = Page(participant_page(content(errors=("no parcels <here>\nTraceback ...", "second"))))
    assert page.texts[0] == "failed: no parcels <here> (and 1 more, see Errors)"
    assert any(text.startswith("The text depends on the brain") for text in page.texts[1:])
    assert ("div", {"class": "first failed", "role": "alert"}) in page.tags
    alone = Page(participant_page(PageContent("sub-02", errors=("no BOLD files: /data",))))
    assert alone.texts[0] == "failed: no BOLD files: /data"


def test_text_of_a_dataset_or_model_stays_text() -> None:
    html = participant_page(content(text=EVIL))
    assert "<script>alert" not in html
    assert "http://evil.example/x.png>" not in html
    page = Page(html)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert all((attrs["src"] or "").startswith("data:image/") for tag, attrs in page.tags if tag == "img")
    assert "alert('x')" in "".join(page.texts)


@pytest.mark.parametrize(
    "html", [participant_page(content()), group_page(GroupContent("Group", tests={"sub-01": PrimaryTest(1, 0.01, 9, 99)}))]
)
def test_a_page_loads_nothing_and_reads_well(html: str) -> None:
    page = Page(html)
    assert page.open == []
    for tag, attrs in page.tags:
        assert "src" not in attrs or (attrs["src"] or "").startswith("data:")
        assert tag not in ("link", "iframe", "object", "base")
        assert tag != "img" or len(attrs["alt"] or "") > 20
        if tag != "a":
            assert "href" not in attrs
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", html)
    anchors = {attrs["href"][1:] for tag, attrs in page.tags if tag == "a" and (attrs["href"] or "").startswith("#")}
    assert anchors <= {attrs.get("id") for _, attrs in page.tags}
    assert len(html) < 2_000_000


def test_only_the_scripts_own_hash_may_run() -> None:
    html = participant_page(content())
    script = re.search(r"<script>(.*?)</script>", html, re.S)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = next(attrs["content"] for tag, attrs in Page(html).tags if tag == "meta" and "http-equiv" in attrs)
    assert f"script-src 'sha256-{digest}'" in (policy or "")
    assert "default-src 'none'" in (policy or "")


def test_decoded_texts_stand_beside_truth_and_controls() -> None:
    few, many = participant_page(content()), participant_page(content(n=3 * MAX_ROWS))
    assert few.count('<th scope="row">s') == 12
    assert "All 12 trials" in few
    assert many.count('<th scope="row">s') == MAX_ROWS
    assert f"{MAX_ROWS} of {3 * MAX_ROWS} trials" in many
    assert "a cat <mark>sleeps</mark>" in few
    for heading in ("From the true brain", "From a permuted brain", "Without a brain"):
        assert heading in few


def test_group_page_counts_participants() -> None:
    tests = {"sub-01": PrimaryTest(1.0, 0.01, 30, 99), "sub-02": PrimaryTest(0.0, 0.6, 30, 99)}
    html = group_page(GroupContent("Group", tests=tests, pages={"sub-01": "sub-01.html"}))
    page = Page(html)
    assert page.texts[0] == "The text depends on the brain in 1 of 2 participants (mean gain 0.50 nats a text)."
    assert ("a", {"href": "sub-01.html"}) in page.tags
    assert Page(group_page(GroupContent("Group", errors=("sub-03: truncated",)))).texts[0] == "failed: sub-03: truncated"
    none = {name: PrimaryTest(0.0, 0.5, 30, 99) for name in "ab"}
    assert (
        Page(group_page(GroupContent("Group", tests=none)))
        .texts[0]
        .startswith("No evidence that the text came from the brain in any of 2")
    )


def test_markdown_escapes_and_links_only_https() -> None:
    html = str(markdown("### A <b>\n\n- one <https://a.org/x>\n- <javascript:alert(1)>\n\nlast"))
    assert html.startswith("<h3>A &lt;b&gt;</h3>")
    assert '<a href="https://a.org/x">' in html
    assert "<javascript" not in html
    assert html.count("<a ") == 1
