"""Configuration: one tree, four sources in order, and nothing wrong that is accepted."""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainlm import config
from bids_brainlm.config import SECTIONS, Config, Phase, as_tree, bearing, build, load, presets, to_toml
from bids_brainlm.errors import ConfigError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FREE: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: st.integers(1, 10**6),
    float: st.floats(0, 0.99),
    bool: st.booleans(),
    tuple[str, ...]: st.lists(TEXT, max_size=3),
    tuple[int, ...]: st.lists(st.integers(0, 9), min_size=1, max_size=3),
    dict[str, Any]: st.dictionaries(TEXT, st.one_of(TEXT, st.integers(-5, 5), st.booleans(), st.lists(st.floats(-1, 1)))),
}
CLOSED = {
    "input.density": st.sampled_from(["", "3k", "164k"]),
    "input.filters": st.dictionaries(
        st.sampled_from(config.QUERIES), st.dictionaries(TEXT, st.one_of(TEXT, st.integers(), st.lists(TEXT)))
    ),
    "split.source": st.just("column"),
    # What excludes each other, or needs words, is tested below.
    "split.scheme": st.sampled_from(["single", "kfold", "column", "list", "leaky-random"]),
    "split.block": st.floats(1, 100),
    "split.amount": st.floats(0.1, 1),
    "split.leave_out": st.just(""),
    "text.mix": st.just({}),
    "split.leave_out_questions": st.just([]),
    "window.seconds": st.floats(0.5, 10),
    "window.chunks": st.just(0),
    "story.decoders": st.just([]),
    "estimate.max_fd": st.just(0),
    "estimate.max_outliers": st.just(0),
    "story.seconds": st.floats(1, 30),
    "story.null_texts": st.integers(2, 50),
    "decode.min_new_tokens": st.just(0),
    "run.memory": st.sampled_from(["", "12G", "500"]),
    "phases.solver": st.just("adamw"),
}


def _section(name: str, cls: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    hints = typing.get_type_hints(cls)
    values = {}
    for item in dataclasses.fields(cls):
        choices = item.metadata["choices"]
        free = st.sampled_from(choices) if choices else FREE[hints[item.name]]
        if choices and typing.get_origin(hints[item.name]) is tuple:
            free = st.lists(free, max_size=2)
        values[item.name] = CLOSED.get(f"{name}.{item.name}", free)
    return st.fixed_dictionaries({}, optional=values)


TREES = st.fixed_dictionaries(
    {"phases": st.lists(_section("phases", Phase), max_size=2), "split": _section("split", SECTIONS["split"])},
    optional={name: _section(name, cls) for name, cls in SECTIONS.items() if name != "split"},
)


@settings(max_examples=150, deadline=None)
@given(TREES.filter(lambda tree: tree["split"].get("scheme") not in ("column", "list") or "source" in tree["split"]))
def test_toml_round_trip(tree: dict[str, Any]) -> None:
    built = build(tree)
    assert build(tomllib.loads(to_toml(built))) == built
    assert build(as_tree(built)) == built


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(["split.folds", "phases.0.epochs", "run.memory"]), TEXT), TEXT, TEXT)
def test_origins_are_comments_whatever_they_say(origins: dict[str, str], path: str, label: str) -> None:
    resolved = load()
    call = {"bids_dir": path, "participant_label": [label], "derivatives": {label: path}}
    tree = tomllib.loads(to_toml(resolved, origins, call))
    assert tree.pop("call") == call
    assert build(tree) == resolved


@pytest.mark.parametrize("name", presets())
def test_every_preset_validates_and_reloads_equal(name: str, tmp_path: Path) -> None:
    resolved = load(name)
    (tmp_path / "same.toml").write_text(to_toml(resolved), "utf-8")
    assert load(str(tmp_path / "same.toml")) == resolved
    assert resolved.phases


def test_a_resolved_file_gives_the_same_on_top_of_any_recipe(tmp_path: Path) -> None:
    resolved = load(overrides={"split.folds": "3", "model.options.hidden": "17", "phases.1.epochs": "9"})
    (tmp_path / "run.toml").write_text(to_toml(resolved), "utf-8")
    assert load("cortext", tmp_path / "run.toml") == resolved


def test_order_is_preset_file_flags_set(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[split]\nfolds = 6\ntest = 0.4\nvalidation = 0.3\n")
    given_flags, overrides = {"split.folds": 7, "split.test": 0.3}, {"split.folds": "8"}
    split = load("cortext", tmp_path / "mine.toml", given_flags, overrides).split
    assert (split.folds, split.test, split.validation, split.group) == (8, 0.3, 0.3, "stimulus")


def test_a_file_without_phases_stays_without(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(to_toml(Config()), "utf-8")
    assert load("cortext", tmp_path / "run.toml") == Config()


ORIGINS = {
    "split.folds": ("--set", 8),
    "split.test": ("-x", 0.3),
    "split.validation": ("mine.toml", 0.3),
    "split.scheme": ("recipe cortext", "single"),
    "split.source": ("default", ""),
    "phases.0.epochs": ("--sloppy", 1),
    "phases.1.epochs": ("--set", 5),
    "phases.0.name": ("recipe cortext", "tokenizers"),
    "phases.0.clip": ("default", 1.0),
    "evaluate.bootstrap": ("--sloppy", 50),
    "decode.permutations": ("--permutations", 9),
    "model.options": ("recipe cortext, --set", {"kind": "mlp", "hidden": 7, "dropout": 0.0}),
    "input.filters": ("--bids-filter-file f.json", {"bold": {"acquisition": "", "run": [1, "2"]}}),
}


def test_origins_say_who_had_the_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text("[split]\nfolds = 6\ntest = 0.4\nvalidation = 0.3\n[evaluate]\nbootstrap = 7\n")
    Path("f.json").write_text('{"bold": {"acquisition": null, "run": [1, "2"]}, "t1w": {"run": 1}}')
    resolved = config.resolve(
        "cortext",
        Path("mine.toml"),
        {"split.folds": 7, "split.test": 0.3, "decode.permutations": 9},
        {"split.folds": "8", "phases.1.epochs": "5", "model.options.hidden": "7"},
        sloppy=True,
        filter_file=Path("f.json"),
        typed={"split.test": "-x", "decode.permutations": "--permutations"},
    )
    tree = as_tree(resolved.config)
    flat = {f"{section}.{key}": value for section in SECTIONS for key, value in tree[section].items()}
    flat |= {f"phases.{i}.{key}": value for i, phase in enumerate(tree["phases"]) for key, value in phase.items()}
    assert list(resolved.origins) == list(flat)
    assert {name: (resolved.origins[name], flat[name]) for name in ORIGINS} == ORIGINS
    assert tomllib.loads(to_toml(resolved.config, resolved.origins)) == tomllib.loads(to_toml(resolved.config))
    shown = to_toml(resolved.config, resolved.origins).splitlines()
    assert "folds = 8  # --set" in shown
    assert all("  # " in line for line in shown if " = " in line)


def test_phases_of_a_file_let_nothing_through(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[[phases]]\nname = "only"\n')
    resolved = config.resolve("cortext", tmp_path / "mine.toml")
    assert resolved.config.phases == (Phase(name="only"),)
    assert resolved.origins["phases.0.name"] == str(tmp_path / "mine.toml")
    assert resolved.origins["phases.0.epochs"] == "default"
    assert not [name for name in resolved.origins if name.startswith("phases.1")]


def test_sloppy_is_quicker_in_every_way() -> None:
    plain, sloppy = load(), config.resolve(sloppy=True).config
    for name in config.SLOPPY:
        section, _, key = name.rpartition(".")
        pairs = zip(plain.phases, sloppy.phases, strict=True) if section == "phases.N" else [(plain, sloppy)]
        for before, after in pairs:
            old, new = (getattr(item if section == "phases.N" else getattr(item, section), key) for item in (before, after))
            assert new < old, name
    assert load(flags={"decode.permutations": 9}) == config.resolve(flags={"decode.permutations": 9}).config


def _request(tmp_path: Path) -> config.Request:
    return config.Request(
        bids_dir=tmp_path / "bids",
        out_dir=tmp_path / "o u t",
        level="participant",
        participants=("01", "02"),
        derivatives={"fmriprep": tmp_path / "d", "my betas": tmp_path / "ü"},
        work_dir=tmp_path / "work",
        config=load(),
    )


def test_the_call_comes_back_from_the_file(tmp_path: Path) -> None:
    call = config.call_of(_request(tmp_path))
    (tmp_path / "run.toml").write_text(to_toml(load(), call=call), "utf-8")
    assert config.resolve(file=tmp_path / "run.toml").call == call
    assert config.resolve(file=tmp_path / "run.toml").config == load()
    (tmp_path / "run.toml").write_text("[split]\nfolds = 3\n", "utf-8")
    assert config.resolve(file=tmp_path / "run.toml").call == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("call = 3", "expected a table"),
        ("[call]\nbids_dri = 'x'", "did you mean 'bids_dir'"),
        ("[call]\nbids_dir = 3", "expected text"),
        ("[call]\nparticipant_label = '01'", "expected a list"),
        ("[call]\nparticipant_label = [1]", "expected a list"),
        ("[call]\nderivatives = ['x']", "expected a table"),
        ("[call]\nderivatives = {a = 1}", "expected a table"),
    ],
)
def test_a_wrong_call_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "run.toml").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=f"{said}.*run.toml"):
        config.resolve(file=tmp_path / "run.toml")


@given(
    st.floats(0.001, 10**6), st.sampled_from(["", " "]), st.sampled_from(["", "K", "m", "MB", "MiB", "G", "gb", "GiB", "T", "B"])
)
def test_gigabytes_of_any_unit(amount: float, space: str, unit: str) -> None:
    bytes_ = {"": 1024**2, "b": 1024**2, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}[unit.lower()[:1]]
    assert config.gigabytes(f"{amount:f}{space}{unit}") == pytest.approx(float(f"{amount:f}") * bytes_ / 1024**3)


@pytest.mark.parametrize("text", ["much", "-1", "0", "1 2", "12X", "G", "1e3", "nan", "12GG", "1,5G"])
def test_no_amount_of_memory(text: str) -> None:
    with pytest.raises(ConfigError, match="12G"):
        config.gigabytes(text)
    with pytest.raises(ConfigError, match=r"run\.memory"):
        build({"run": {"memory": text}})


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"blod": {}}, "did you mean 'bold'"),
        ({"fmaps": {}}, "did you mean 'fmap'"),
        ({"nothing": {}}, "known: bold, mask, confounds, events"),
        ({"bold": "ap"}, "expected a table"),
        ({"bold": {"acquisition": {"is": "ap"}}}, "input.filters.bold.acquisition"),
        ({"bold": {"acquisition": [["ap"]]}}, "input.filters.bold.acquisition"),
        ({"bold": {"run": 1.5}}, "input.filters.bold.run"),
        ({"bold": {"run": True}}, "input.filters.bold.run"),
    ],
)
def test_filters_of_a_wrong_shape(filters: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build({"input": {"filters": filters}})


@pytest.mark.parametrize("mix", [{"caption": "much"}, {"caption": -1}, {"caption": 0}, {"caption": True}])
def test_a_mix_has_weights(mix: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="text.mix is .*expected a weight"):
        build({"text": {"mix": mix}})


def test_a_mix_is_of_captions_and_questions() -> None:
    assert load(overrides={"text.mix": "{caption = 1, question = 0.5}"}).text.mix == {"caption": 1, "question": 0.5}
    for section in ({"text": {"mix": {"caption": 1}}}, {"split": {"leave_out_questions": "colour"}}):
        with pytest.raises(ConfigError, match="not of words with times"):
            build({**section, "window": {"chunks": 3}})


def test_one_table_or_none_needs_no_list() -> None:
    """As in the settings that were written when there could be but one."""
    assert build({"text": {"table": "a.tsv"}}).text.table == ("a.tsv",)
    assert build({"text": {"table": ""}}).text.table == ()


def test_filters_of_fmriprep_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    queries = ["t1w", "t2w", "fmap", "sbref", "flair", "roi", "dwi", "T1w"]
    filters = {query: {"session": "1"} for query in [*queries, "bold"]}
    built = build({"input": {"filters": filters}})
    assert built.input.filters == {"bold": {"session": "1"}}
    assert [query for query in queries if query in caplog.text] == queries
    caplog.clear()
    assert build(as_tree(built)) == built
    assert not caplog.text


@pytest.mark.parametrize("text", ["{", "", "3", "[]", "\xff"])
def test_a_filter_file_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"f\.json"):
        config.resolve(filter_file=tmp_path / "f.json")
    with pytest.raises(ConfigError, match=r"none\.json"):
        config.resolve(filter_file=tmp_path / "none.json")


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"spilt": {}}, "did you mean 'split'"),
        ({"split": {"fold": 3}}, "did you mean 'split.folds'"),
        ({"phases": [{"epoch": 3}]}, "did you mean 'phases.0.epochs'"),
        ({"phases": [{"solver": "ridge"}]}, "phases.0: solver ridge needs a linear tokenizer"),
        ({"phases": [{"train": ["norm"]}]}, "did you mean 'norms'"),
        ({"phases": {"epochs": 3}}, "list of tables"),
        ({"split": 3}, "expected a table"),
        ({"split": {"folds": "3"}}, "split.folds is '3'; expected int"),
        ({"split": {"folds": 3.0}}, "expected int"),
        ({"split": {"folds": True}}, "expected int"),
        ({"split": {"test": "much"}}, "expected float"),
        ({"split": {"test": float("nan")}}, "finite"),
        ({"split": {"test": 1.0}}, "below 1"),
        ({"split": {"scheme": "kfolds"}}, "expected one of single, kfold"),
        ({"split": {"scheme": "column"}}, "split.source"),
        ({"split": {"average": ["tests"]}}, "tests"),
        ({"run": {"offline": 1}}, "expected bool"),
        ({"run": {"offline": "yes"}}, "expected bool"),
        ({"input": {"tasks": [["a"]]}}, "expected str"),
        ({"input": {"space": ["T1w"]}}, "expected str"),
        ({"input": {"density": "7k"}}, "7k"),
        ({"model": {"options": "hidden"}}, "model.options"),
        ({"model": {"options": {"a": float("inf")}}}, "model.options"),
        ({"phases": [{"epochs": 0}]}, "at least 1"),
        ({"run": {"skip": ["trian"]}}, "did you mean 'train'"),
        ({"run": {"nprocs": -1}}, "run.nprocs is -1; expected at least 0"),
        ({"run": {"omp_nthreads": 0}}, "at least 1"),
        ({"input": {"dummy_scans": -2}}, "at least -1"),
        ({"run": {"memory": "12X"}}, "run.memory: '12X'"),
    ],
)
def test_wrong_names_types_and_values_are_refused(tree: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(tree)
    assert said in str(caught.value)


def test_a_fault_in_a_file_names_the_file(tmp_path: Path) -> None:
    for text in ("[split]\nfold = 3\n", "[split\n", "folds"):
        (tmp_path / "mine.toml").write_text(text)
        with pytest.raises(ConfigError, match=r"mine\.toml"):
            load("cortext", tmp_path / "mine.toml")
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load("cortext", tmp_path / "nowhere.toml")


def test_an_unknown_recipe_names_the_near_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'cortext'"):
        load("cortxt")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("model.revision", "1e5", "1e5"),
        ("model.revision", "0123", "0123"),
        ("model.revision", "true", "true"),
        ("model.revision", '"quoted"', "quoted"),
        ("input.runs", "01", ("01",)),
        ("input.runs", '["01", "02"]', ("01", "02")),
        ("input.tasks", "2024-01-01", ("2024-01-01",)),
        ("split.test", "1e-1", 0.1),
        ("split.folds", "4", 4),
        ("run.offline", "true", True),
        ("model.options", "{hidden = 3}", {"hidden": 3}),
    ],
)
def test_text_of_set_is_read_by_the_type_of_the_setting(name: str, text: str, value: Any) -> None:
    section, _, key = name.partition(".")
    assert getattr(getattr(load(overrides={name: text}), section), key) == value


def test_set_reaches_phases_and_options() -> None:
    resolved = load(overrides={"phases.0.name": "3", "phases.1.learning_rate": "1e-4", "model.options.kind": "linear"})
    assert resolved.phases[0].name == "3"
    assert resolved.phases[1].learning_rate == 1e-4
    assert resolved.model.options["kind"] == "linear"
    for name in ("phases.2.epochs", "phases.x.epochs", "phases.0.epoch", "splt.folds", "split"):
        with pytest.raises(ConfigError):
            load(overrides={name: "1"})


def test_every_setting_says_what_it_is() -> None:
    for name, item, _ in config.settings():
        assert len(item.metadata["help"]) > 8, name
        assert item.metadata["help"].endswith("."), name


def test_only_bearing_settings_enter_hashes() -> None:
    resolved = load()
    changed = {name: item.default for name, item, _ in config.settings() if not item.metadata["bears"]}
    assert changed
    for name in changed:
        section, _, key = name.partition(".")
        assert key not in bearing(resolved, section)[section]
    assert bearing(resolved, "run") == {"run": {"random_seed": 42}}
    assert bearing(load(overrides={"split.folds": "9"}), "split") != bearing(resolved, "split")
    assert bearing(resolved, "phases")["phases"] == as_tree(resolved)["phases"]


def test_the_tree_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().split.folds = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window.words": "auto", "window.chunks": 3}, "exclude each other"),
        ({"window.words": "auto", "estimate.max_fd": 0.5}, "limits on trials"),
        ({"split.scheme": "blocks"}, "set --words"),
        ({"story.decoders": ["generate"]}, "set --words"),
        ({"window.seconds": 0}, "window.seconds is 0"),
        ({"window.context": []}, "window.context is"),
        ({"window.context": [-1]}, "window.context is"),
        ({"split.amount": 1.5}, "at most 1"),
        ({"split.leave_out": "animal=dog"}, "set --facts"),
        ({"decode.min_new_tokens": 33}, "larger than decode.max_new_tokens"),
    ],
)
def test_settings_of_time_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    tree: dict[str, Any] = {}
    for name, value in values.items():
        section, _, key = name.partition(".")
        tree.setdefault(section, {})[key] = value
    with pytest.raises(ConfigError, match=message):
        build(tree)


def test_cortext_linear_is_cortext_but_for_its_tokenizers() -> None:
    linear, plain = as_tree(load("cortext-linear")), as_tree(load("cortext"))
    assert linear["model"].pop("options") == {"kind": "linear"}
    plain["model"].pop("options")
    assert linear == plain
