"""Texts join to trials by exact keys, and a trial without one is kept out with the reason."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bids_brainlm.config import Text
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.io.events import load_events
from bids_brainlm.io.texts import Item, Texts, load_texts


def load(root: Path, events: dict[str, list[str | None]], *, table: str = "", **settings: str) -> Texts:
    named = Text(**settings, table=tuple(table.split()))  # type: ignore[arg-type]
    return load_texts(root, named, pd.DataFrame(events, dtype=object), root / "events.tsv")


def table(root: Path, content: str, name: str = "stimuli/captions.tsv") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


@pytest.mark.parametrize("column", ["text", "caption", "sentence"])
def test_text_in_the_events(tmp_path: Path, column: str) -> None:
    texts = load(tmp_path, {"stim_file": ["a", "b", "c"], column: [" a  cat ", None, "two\nlines"]})
    assert texts.items == ((Item("", "a cat", ("a cat",)),), (), (Item("", "two lines", ("two lines",)),))
    assert texts.stimulus == ("a cat", "", "two lines")
    assert list(texts.keep) == [True, False, True]
    assert texts.reasons == ("", f"no text in column {column}", "")
    assert load(tmp_path, {"story": ["x y"], "stim_id": ["7"]}, column="story", key="stim_id").stimulus == ("7",)


def test_rows_of_one_key_are_references_of_each_other(tmp_path: Path) -> None:
    table(tmp_path, "stim_file\tcaption\nimg/1.png\ta cat\nimg/1.png\tone cat\nimg/1.png\ta cat\nimg/2.png\ta dog\n")
    texts = load(tmp_path, {"stim_file": ["img/1.png", "1.png", None, "img/2.png"], "trial_type": ["x"] * 4})
    both = ("a cat", "one cat")
    assert texts.items[0] == (Item("", "a cat", both),)
    assert texts.stimulus == ("img/1.png", "", "", "img/2.png")
    assert texts.n_duplicates == 1
    assert list(texts.keep) == [True, False, False, True]
    assert texts.reasons == ("", "no text for '1.png' in captions.tsv", "no stim_file", "")


def test_questions(tmp_path: Path) -> None:
    table(tmp_path, "trial_type\tquestion\tanswer\nx\tWhat?\ta cat\nx\tWhat?\tcat\nx\tHow many?\tone\nx\t\tfree\n")
    (items,) = load(tmp_path, {"trial_type": ["x"]}).items
    assert items == (
        Item("What?", "a cat", ("a cat", "cat"), phrasings=("What?",)),
        Item("How many?", "one", ("one",), phrasings=("How many?",)),
        Item("", "free", ("free",)),
    )


def test_captions_and_questions_are_put_together(tmp_path: Path) -> None:
    """Each table has its own column of texts; a category of a caption would be one of stimuli."""
    table(tmp_path, "stim_id\tcaption\tcategory\ttask\n1\ta cat\tanimal\tx\n1\tone cat\tanimal\ty\n2\ta bus\tvehicle\tx\n")
    table(tmp_path, "stim_id\tquestion\tanswer\tcategory\n1\tHow many?\tone\tcount\n", "stimuli/questions.tsv")
    events: dict[str, list[str | None]] = {"stim_id": ["1", "2", "3"]}
    texts = load(tmp_path, events, table="stimuli/captions.tsv stimuli/questions.tsv")
    asked = Item("How many?", "one", ("one",), "count", ("How many?",))
    assert texts.items == ((Item("", "a cat", ("a cat", "one cat")), asked), (Item("", "a bus", ("a bus",)),), ())
    assert texts.source == "captions.tsv and questions.tsv, joined by stim_id"
    assert texts.reasons[2] == "no text for '3' in captions.tsv and questions.tsv"
    renamed = load(tmp_path, events, table="stimuli/captions.tsv stimuli/questions.tsv", answer="category", category="answer")
    assert renamed.items[0][1] == Item("How many?", "count", ("count",), "one", ("How many?",))
    table(tmp_path, "stim_id\tlabel\n1\tx\n", "stimuli/labels.tsv")
    with pytest.raises(InputError, match=r"or none of texts: .*labels.tsv .*found stim_id, label"):
        load(tmp_path, events, table="stimuli/captions.tsv stimuli/labels.tsv")


def test_rows_of_one_task_are_phrasings(tmp_path: Path) -> None:
    rows = "1\tcount\tHow many?\tone\n1\tcount\tWhat number?\tone\n1\tcolour\tHow many colours?\ttwo\n1\t\tWho?\ta cat\n"
    table(tmp_path, "stim_id\ttask\tquestion\tanswer\n" + rows)
    (items,) = load(tmp_path, {"stim_id": ["1"]}).items
    assert [item.phrasings for item in items] == [("How many?", "What number?"), ("How many colours?",), ("Who?",)]
    assert [item.references for item in items] == [("one",), ("two",), ("a cat",)]
    table(tmp_path, "stim_id\ttask\tquestion\tanswer\n" + rows.replace("What number?\tone", "What number?\ttwo"))
    with pytest.raises(InputError, match="the task 'count' about '1' have different answers.*text.task"):
        load(tmp_path, {"stim_id": ["1"]})
    with pytest.raises(InputError, match="no column 'kind' of categories.*one of stim_id, task, question, answer"):
        load(tmp_path, {"stim_id": ["1"]}, category="kind")


def test_keys_are_tried_in_order_until_a_table_has_one(tmp_path: Path) -> None:
    table(tmp_path, "trial_type\tcaption\nx\tby type\n")
    events: dict[str, list[str | None]] = {"trial_type": ["x"], "stim_file": ["f"]}
    assert load(tmp_path, events).items[0][0].answer == "by type"
    table(tmp_path, "stim_file\ttext\nf\tby file\n", "stimuli/b.tsv")
    assert load(tmp_path, events).items[0][0].answer == "by file"
    assert load(tmp_path, events, key="trial_type").items[0][0].answer == "by type"
    table(tmp_path, "stim_file\tanswer\nf\tother\n", "stimuli/c.tsv")
    with pytest.raises(InputError, match=r"several tables \(b.tsv, c.tsv\).*choose --texts"):
        load(tmp_path, events)
    assert load(tmp_path, events, table="stimuli/c.tsv").items[0][0].answer == "other"


def test_a_changed_table_is_read_again(tmp_path: Path) -> None:
    table(tmp_path, "stim_id\tcaption\n1\tfirst\n")
    assert load(tmp_path, {"stim_id": ["1"]}).items[0][0].answer == "first"
    table(tmp_path, "stim_id\tcaption\n1\tsecond one\n")
    assert load(tmp_path, {"stim_id": ["1"]}).items[0][0].answer == "second one"


def test_nothing_found_names_the_columns(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="the events have the columns onset, weight"):
        load(tmp_path, {"onset": ["1"], "weight": ["2"]})
    table(tmp_path, "trial_type\tcaption\ncat\ta cat\n")
    with pytest.raises(MissingInputError, match="no trial has a text in captions.tsv, joined by trial_type.*'rest'"):
        load(tmp_path, {"trial_type": ["rest"]})
    with pytest.raises(InputError, match="no column 'word' of texts.*one of trial_type"):
        load(tmp_path, {"trial_type": ["cat"]}, column="word")
    with pytest.raises(InputError, match="no column 'image' of keys"):
        load(tmp_path, {"trial_type": ["cat"]}, key="image")
    with pytest.raises(InputError, match="found trial_type, caption"):
        load(tmp_path, {"trial_type": ["cat"]}, table="stimuli/captions.tsv", answer="label")
    with pytest.raises(InputError, match="no column 'q' of questions"):
        load(tmp_path, {"trial_type": ["cat"]}, question="q")
    with pytest.raises(MissingInputError, match="no such file"):
        load(tmp_path, {"trial_type": ["cat"]}, table="stimuli/absent.tsv")


def test_a_table_must_stay_inside_the_data_set(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    outside = table(tmp_path, "trial_type\tcaption\ncat\tsecret\n", "secret.tsv")
    (root / "stimuli").mkdir(parents=True)
    for leaving in ("../secret.tsv", str(outside)):
        with pytest.raises(InputError, match="leaves the BIDS folder"):
            load(root, {"trial_type": ["cat"]}, table=leaving)
    (root / "stimuli" / "link.tsv").symlink_to(outside)
    with pytest.raises(InputError, match="leaves the BIDS folder"):
        load(root, {"trial_type": ["cat"]})
    (root / "stimuli" / "link.tsv").unlink()
    table(root, "trial_type\tcaption\ncat\ta cat\n", ".git/annex/x.tsv")
    (root / "stimuli" / "inner.tsv").symlink_to("../.git/annex/x.tsv")
    assert load(root, {"trial_type": ["cat"]}).keep.all()


def test_haxby(real_data: Path) -> None:
    root = real_data / "haxby2001"
    events = root / "sub-1" / "func" / "sub-1_task-objectviewing_run-01_events.tsv"
    texts = load_texts(root, Text(), load_events(events), events)
    assert texts.keep.all()
    assert len(texts.items) == 8
    assert all(len(items) == 1 and len(items[0].references) == 2 for items in texts.items)
