"""Faults of tables: events, texts, confounds; and oddities of tables that must simply work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from faults_case import (
    CONFOUNDS,
    ONE,
    RUNS,
    SIDECAR,
    FaultCase,
    captions,
    edit,
    folder_in_place,
    link_to_itself,
    not_fetched,
    rewrite_bytes,
)

Change = Callable[[pd.DataFrame], pd.DataFrame]
HEADER = "onset\tduration\ttrial_type\tstim_id\tpart\n"


def _events(run: int, change: Change) -> Callable[[Any], None]:
    return lambda study: edit(study.events(run), change)


def _all_events(change: Change) -> Callable[[Any], None]:
    def damage(study: Any) -> None:
        for run in RUNS:
            edit(study.events(run), change)

    return damage


def _events_file(run: int, change: Callable[[Path], object]) -> Callable[[Any], None]:
    def damage(study: Any) -> None:
        change(study.events(run))

    return damage


def _confounds(change: Change) -> Callable[[Any], None]:
    return lambda study: edit(study.func(CONFOUNDS, 1), change)


def _confounds_file(change: Callable[[Path], object]) -> Callable[[Any], None]:
    def damage(study: Any) -> None:
        change(study.func(CONFOUNDS, 1))

    return damage


def _captions(change: Change) -> Callable[[Any], None]:
    return lambda study: edit(captions(study), change)


def _captions_file(change: Callable[[Path], object]) -> Callable[[Any], None]:
    def damage(study: Any) -> None:
        change(captions(study))

    return damage


def _ragged(path: Path) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[3].rpartition("\t")[0], *lines[4:]]) + "\n")


def _latin(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"a red dog", "a röd dog".encode("latin-1")))


def _tables(study: Any) -> list[Path]:
    """Everything that is text: events, captions, facts, confounds, sidecars."""
    runs = [path for run in RUNS for path in (study.events(run), study.func(CONFOUNDS, run), study.func(SIDECAR, run))]
    return [*runs, *sorted((study.bids / "stimuli").glob("*.tsv")), study.bids / "dataset_description.json"]


def _windows(study: Any) -> None:
    for path in _tables(study):
        rewrite_bytes(path, lambda content: content.replace(b"\n", b"\r\n"))


def _bom(study: Any) -> None:
    for path in _tables(study):
        rewrite_bytes(path, lambda content: b"\xef\xbb\xbf" + content)


def _no_duration(study: Any) -> None:
    """A duration that is not known counts as 0, as it is in the other copy of that row."""
    edit(study.events(2), lambda table: table.assign(duration=["n/a", *table["duration"][1:]]))


def _first_row(study: Any) -> None:
    """What fMRIPrep writes for derivatives; the column is then one more confound."""
    edit(study.func(CONFOUNDS, 1), lambda table: table.assign(trans_x_derivative1=["n/a", *table["trans_x"].diff().iloc[1:]]))
    for run in RUNS[1:]:
        edit(study.func(CONFOUNDS, run), lambda table: table.assign(trans_x_derivative1=table["trans_x"].diff().fillna(0.0)))


def _first_row_is_zero(study: Any, done: Any, plain: Any) -> None:
    """The same with 0 for n/a gives the same responses."""
    found = {path.name: path.read_bytes() for path in (study.out / "sub-01" / "func").glob("*run-1*statmap.nii.gz")}
    edit(study.func(CONFOUNDS, 1), lambda table: table.replace({"trans_x_derivative1": {"n/a": "0"}}))
    study.ok("--participant-label", "01", "--facts", "stimuli/facts.tsv", "-c", "trans_x*")
    assert found
    assert found == {name: (study.out / "sub-01" / "func" / name).read_bytes() for name in found}


def _quoted(study: Any) -> None:
    """As a spreadsheet writes text."""
    rewrite_bytes(captions(study), lambda content: content.replace(b"a red dog", b'"a red dog"'))


def _repeated_row(study: Any) -> None:
    edit(captions(study), lambda table: pd.concat([table, table.iloc[:3]]))


def _second_caption(study: Any) -> None:
    edit(captions(study), lambda table: pd.concat([table, table.assign(caption="seen: " + table["caption"])]))


def _is_a_reference(study: Any, done: Any, plain: Any) -> None:
    texts = study.table("decoded")["text_true"].str.split(" | ", regex=False)
    assert all(second == f"seen: {first}" for first, second in texts)


def _missing_caption(study: Any) -> None:
    edit(captions(study), lambda table: table[table["stim_id"] != "red-cow"])


def _is_left_out(study: Any, done: Any, plain: Any) -> None:
    trials = pd.concat(pd.read_csv(path, sep="\t") for path in (study.out / "sub-01" / "beh").glob("*_desc-trials_events.tsv"))
    assert len(trials) == 33
    assert "red-cow" not in set(trials["stimulus_id"])


ABROAD = "红色的鸟 طائر أحمر 🐦 é"
TRICKY = '<script>alert("x")</script> & <b>bird</b>'
ESCAPED = "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt; &amp; &lt;b&gt;bird&lt;/b&gt;"


def _in_every_caption(text: str) -> Callable[[Any], None]:
    return lambda study: edit(captions(study), lambda table: table.assign(caption=table["caption"] + f" {text}"))


def _came_through(study: Any, done: Any, plain: Any) -> None:
    assert study.table("decoded")["text_true"].str.endswith(ABROAD).all()
    assert ABROAD in (study.out / "sub-01.html").read_text("utf-8")


def _is_escaped(study: Any, done: Any, plain: Any) -> None:
    assert study.table("decoded")["text_true"].str.endswith(TRICKY).all()
    study.ok(level="group")
    pages = {path.name: path.read_text("utf-8") for path in study.out.glob("*.html")}
    assert ESCAPED in pages["sub-01.html"]
    for page in pages.values():
        assert "alert(" not in page.replace(ESCAPED, "")


def _outside(study: Any) -> None:
    (study.root / "elsewhere.tsv").write_text(captions(study).read_text())


def _link_outside(study: Any) -> None:
    _outside(study)
    captions(study).unlink()
    captions(study).symlink_to(study.root / "elsewhere.tsv")


def _phrasings(answers: tuple[str, str]) -> Change:
    """Two phrasings of the question of each caption, with these endings of their answers."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        parts = [
            table.assign(task="what", question=q, caption=table["caption"] + a)
            for q, a in zip(("What?", "Which?"), answers, strict=True)
        ]
        return pd.concat(parts)

    return change


EVENTS = [
    (
        "onset is n/a",
        _events(2, lambda t: t.assign(onset=["n/a", *t["onset"][1:]])),
        65,
        ("onset of row 1 is n/a", "run-2_events.tsv"),
    ),
    (
        "onset is a word",
        _events(2, lambda t: t.assign(onset=["start", *t["onset"][1:]])),
        65,
        ("row 1 is start", "run-2_events.tsv"),
    ),
    ("onsets in ms", _events(2, lambda t: t.assign(onset=t["onset"] * 1000)), 65, ("run-2_events.tsv", "seconds")),
    ("onsets after the end of the run", _events(3, lambda t: t.assign(onset=t["onset"] + 60)), 65, ("run-3_events.tsv",)),
    (
        "two trials at once",
        _events(1, lambda t: t.assign(onset=[t["onset"][1], *t["onset"][1:]])),
        65,
        ("two trials with texts begin at 10 s", "run-1_events.tsv", "one row a trial"),
    ),
    ("negative duration", _events(1, lambda t: t.assign(duration=-1.0)), 65, ("duration of row 1 is -1", "run-1_events.tsv")),
    ("no column onset", _events(1, lambda t: t.drop(columns="onset")), 65, ("no column 'onset'", "run-1_events.tsv")),
    ("empty events (column names only)", _events_file(1, lambda p: p.write_text(HEADER)), 65, ("no trial", "run-1_events.tsv")),
    ("events of 0 bytes", _events_file(1, lambda p: p.write_bytes(b"")), 65, ("the table is empty", "run-1_events.tsv")),
    ("a line with too few fields", _events_file(1, _ragged), 65, ("line 4 has 4 fields", "run-1_events.tsv")),
    ("events are a folder", _events_file(1, folder_in_place), 65, ("cannot be read (Is a directory)", "run-1_events.tsv")),
    ("events not fetched (datalad)", _events_file(1, not_fetched), 66, ("no such file", "run-1_events.tsv", "datalad get")),
]

CONFOUND_TABLES = [
    ("no confounds", _confounds_file(Path.unlink), 66, ("no confounds", "sub-01_task-look_run-1", "confounds_timeseries.tsv")),
    (
        "confound column missing",
        _confounds(lambda t: t.drop(columns="rot_x")),
        65,
        ("'rot_x'", f"run-1_{CONFOUNDS}", "--confounds"),
    ),
    ("fewer rows than volumes", _confounds(lambda t: t[:-3]), 65, ("41 rows for 44 volumes", CONFOUNDS)),
    ("confound without a value", _confounds(lambda t: t.assign(rot_x="n/a")), 65, ("rot_x has no value", f"run-1_{CONFOUNDS}")),
    ("confound that is a word", _confounds(lambda t: t.assign(rot_x="none")), 65, ("rot_x is 'none' in row 1", CONFOUNDS)),
    ("confounds are a folder", _confounds_file(folder_in_place), 65, ("cannot be read (Is a directory)", CONFOUNDS)),
]

TEXTS = [
    (
        "events without keys",
        _all_events(lambda t: t.drop(columns="stim_id")),
        65,
        ("no column 'stim_id' of keys", "run-1_events.tsv"),
    ),
    (
        "no trial has a text",
        _all_events(lambda t: t.assign(stim_id="picture" + t["stim_id"])),
        66,
        ("no trial has a text in captions.tsv", "run-1_events.tsv", "no text for 'picture"),
    ),
    ("too few trials", _all_events(lambda t: t[:1]), 65, ("3 trial(s) with a text", "_events.tsv", "at least 4")),
    (
        "one stimulus only",
        _all_events(lambda t: t.assign(stim_id="red-dog")),
        65,
        ("cannot be split", "1 group(s)", "_events.tsv"),
    ),
]

SHARED = [
    ("table of texts is empty", _captions_file(lambda p: p.write_bytes(b"")), 65, ("the table is empty", "captions.tsv")),
    ("table of texts has no text", _captions(lambda t: t[:0]), 66, ("no trial has a text in captions.tsv",)),
    (
        "column of keys missing",
        _captions(lambda t: t.rename(columns={"stim_id": "item"})),
        65,
        ("found item, caption", "captions.tsv"),
    ),
    ("column name twice", _captions(lambda t: t.rename(columns={"caption": "stim_id"})), 65, ("names repeat", "captions.tsv")),
    ("not UTF-8", _captions_file(_latin), 65, ("not UTF-8 text", "captions.tsv", "save it as UTF-8")),
    ("link to itself", _captions_file(link_to_itself), 65, ("captions.tsv",)),
    ("link that leaves the dataset", _link_outside, 65, ("captions.tsv", "copy it there")),
    (
        "phrasings with answers of their own",
        _captions(_phrasings(("", " or two"))),
        65,
        ("the task 'what' about", "captions.tsv", "text.task"),
    ),
]

WORKS: list[tuple[str, str, Callable[[Any], None], tuple[str, ...], bool, Any]] = [
    ("Events", "Windows line ends", _windows, (), True, None),
    ("Events", "byte order mark", _bom, (), True, None),
    ("Events", "duration is n/a (taken as 0)", _no_duration, (), False, None),
    ("Texts", "a row twice", _repeated_row, (), True, None),
    ("Texts", "quotation marks of a spreadsheet", _quoted, (), True, None),
    ("Texts", "two captions of one key (each is right)", _second_caption, (), False, _is_a_reference),
    (
        "Texts",
        "a key without caption (modelled, not decoded)",
        _missing_caption,
        ("have no text in", "red-cow"),
        False,
        _is_left_out,
    ),
    ("Texts", "Chinese, Arabic, emoji", _in_every_caption(ABROAD), (), False, _came_through),
    ("Texts", "HTML (escaped in reports)", _in_every_caption(TRICKY), (), False, _is_escaped),
]

CASES = [
    *(FaultCase("Events", name, damage, code, words) for name, damage, code, words in EVENTS),
    *(FaultCase("Texts", name, damage, code, words) for name, damage, code, words in TEXTS),
    *(FaultCase("Texts", name, damage, code, words, whose=ONE) for name, damage, code, words in SHARED),
    *(
        FaultCase("Texts", name, _outside, code, words, ("--set", f"text.table={path}"), whose=ONE)
        for name, path, code, words in (
            ("table that is not there", "stimuli/none.tsv", 66, ("none.tsv",)),
            ("path that leaves the dataset (..)", "../elsewhere.tsv", 65, ("elsewhere.tsv",)),
            ("path that leaves the dataset (absolute)", "{root}/elsewhere.tsv", 65, ("elsewhere.tsv",)),
        )
    ),
    *(
        FaultCase("Texts", name, None, 65, words, ("--set", setting), whose=ONE)
        for name, setting, words in (
            ("question left out that nobody asks", "split.leave_out_questions=size", ("question or category 'size'",)),
            ("mix with a kind that no text is of", "text.mix={question = 1}", ("kind 'question'; kinds: caption",)),
        )
    ),
    *(FaultCase("Confounds", name, damage, code, words) for name, damage, code, words in CONFOUND_TABLES),
    FaultCase("Confounds", "name that matches nothing", words=("'csf'",), options=("--confounds", "csf"), whose=ONE),
    FaultCase(
        "Confounds", "no volume left", words=("44 of 44 volumes", "--dummy-scans"), options=("--dummy-scans", "44"), whose=ONE
    ),
    FaultCase(
        "Confounds",
        "n/a in the first row (taken as 0)",
        _first_row,
        0,
        options=("-c", "trans_x*"),
        whose=ONE,
        check=_first_row_is_zero,
    ),
    *(FaultCase(topic, name, damage, 0, words, check=check, same=same) for topic, name, damage, words, same, check in WORKS),
]
