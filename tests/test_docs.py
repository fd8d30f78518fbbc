"""The pages say what the code says: links lead somewhere, commands parse, settings exist, tables are generated."""

from __future__ import annotations

import csv
import doctest
import importlib.util
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pandas as pd
import pytest

from bids_brainlm.cli import app, companion, exits
from bids_brainlm.cli.arguments import given_settings
from bids_brainlm.config import SECTIONS, Phase, Text, build, load, presets, settings
from bids_brainlm.errors import ConfigError
from bids_brainlm.evaluation import metrics
from bids_brainlm.io.texts import Item, load_texts
from bids_brainlm.registry import REGISTRIES
from bids_brainlm.simulation.bold import AMPLITUDE
from bids_brainlm.simulation.patches import Sheet
from bids_brainlm.simulation.world import FACTORS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
MARKED = [page for page in PAGES if "<!-- generated:" in page.read_text("utf-8")]
ARCHITECTURE = DOCS / "explanation" / "architecture.md"
FOREIGN_FLAGS = {
    *("--output-spaces", "--cifti-output", "--fs-no-reconall", "--project-goodvoxels"),  # fMRIPrep
    *("--gpus", "--init", "--read-only", "--entrypoint"),  # Docker
    *("--nv", "--cleanenv", "--bind", "--env", "--no-home", "--containall"),  # Apptainer
    *("--signal", "--requeue", "--dependency", "--kill-on-invalid-dep"),  # Slurm
    *("--vertices", "--choices", "--sessions"),  # our benchmarks
}
"""Options of other programs that the text mentions."""

MISTYPED = {"--particpant-label", "input.spcae"}
"""What the page of faults shows the answer to."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("brainlm_docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def _quoted(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", _prose(page))


def _commands(page: Path) -> Iterator[list[str]]:
    """Words of each of our commands in the shell blocks of a page, and of those that its text quotes whole."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    # A file that is written from the shell is no command.
    blocks = [re.sub(r"<<'END'\n.*?^END$", "", block, flags=re.DOTALL | re.MULTILINE) for block in blocks]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").replace("$seed", "1").splitlines()]
    whole = [text for text in _quoted(page) if text.startswith(f"{app.NAME} BIDS OUT participant")]
    for line in [*lines, *whole]:
        words = shlex.split(line.partition("   # ")[0].split(" | ")[0])
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            del words[0]
        names = [Path(word).name for word in words[:1]]
        if names and names[0] in (app.NAME, companion.NAME):
            yield [names[0], *words[1:]]


ALL_COMMANDS = [(page, words) for page in PAGES for words in _commands(page)]


@pytest.mark.parametrize("page", MARKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_generated_parts_are_up_to_date(page: Path) -> None:
    text = page.read_text("utf-8")
    assert _generator().page(text) == text, "run: python docs/generate.py"


def test_every_table_that_can_be_generated_is_on_a_page() -> None:
    names = {name for page in MARKED for name in re.findall(r"<!-- generated: (\S+) -->", page.read_text("utf-8"))}
    assert names == set(_generator().PARTS)


def _anchors(page: Path) -> set[str]:
    """Anchors of the headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@each_page
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text("utf-8")):
        name, _, anchor = target.partition("#")
        goal = page.parent / name if name else page
        assert goal.exists(), target
        if anchor:
            assert anchor in _anchors(goal), target


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 80


def test_every_page_is_in_the_index_and_the_readme_leads_to_it() -> None:
    index = DOCS / "index.md"
    linked = {(DOCS / target).resolve() for target in re.findall(r"\]\(([^)#]+\.md)", index.read_text("utf-8"))}
    assert linked == {page.resolve() for page in DOCS.rglob("*.md")} - {index.resolve()}
    assert "docs/index.md" in (ROOT / "README.md").read_text("utf-8")


def test_there_are_commands_to_check() -> None:
    assert len(ALL_COMMANDS) > 30
    assert {words[0] for _, words in ALL_COMMANDS} == {app.NAME, companion.NAME}


@pytest.mark.parametrize(("page", "words"), ALL_COMMANDS, ids=lambda value: value.stem if isinstance(value, Path) else value[0])
def test_commands_parse(page: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Folders of the examples are not there.
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: Path(value))
    name, *args = words
    command: click.Command = app.command if name == app.NAME else companion.command
    if {"--help", "--version"} & set(args):
        return
    if isinstance(command, click.Group):
        name, *args = args
        command = command.commands[name]
    context = command.make_context(name, list(args), obj=exits.Ending())
    if command is app.command:
        load(context.params["recipe"], None, given_settings(context), context.params["overrides"])


@each_page
def test_settings_that_are_named_exist(page: Path) -> None:
    known = {name for name, _, _ in settings()} | {f"phases.{key}" for key in Phase.__dataclass_fields__}
    sections = "|".join([*SECTIONS, "phases"])
    for text in _quoted(page):
        for name in re.findall(rf"(?<![\w./-])(?:{sections})\.[a-z0-9N_]+(?:\.[a-z0-9_]+)?", text):
            plain = re.sub(r"^phases\.[0-9N]+", "phases", name)
            plain = re.sub(r"^(model\.options)\..*", r"\1", plain)
            assert plain in known | {"phases"} | MISTYPED or name.endswith(".tsv"), name


def test_options_that_are_named_exist() -> None:
    commands = [app.command, *companion.command.commands.values()]
    flags = {flag for command in commands for param in command.params for flag in param.opts} | {"--help", "--version"}
    # Docstrings, which the API page quotes, speak of flags in general.
    for page in [page for page in PAGES if page.name != "api.md"]:
        named = {flag for text in _quoted(page) for flag in re.findall(r"(?<![\w-])--[a-z][a-z_-]+", text)}
        assert named <= flags | FOREIGN_FLAGS | {"--participant_label"} | MISTYPED, page.name


def test_a_wrong_command_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: Path(value))
    with pytest.raises(click.UsageError):
        app.command.make_context("x", ["BIDS", "OUT", "participant", "--splt", "kfold"], obj=exits.Ending())
    with pytest.raises(ConfigError):
        load("cortext", None, {}, {"split.fold": "3"})


def test_toml_keys_of_the_texts_are_presets() -> None:
    for page in PAGES:
        for name in re.findall(r"--recipe ([a-z][\w-]*)", page.read_text("utf-8")):
            assert name in presets(), page.name


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))
    for page in PAGES:
        text = page.read_text("utf-8")
        named = re.findall(r"(?:^|`)make ((?:[A-Z]+=\S+ )*)([a-z-]+)", text, flags=re.MULTILINE)
        assert {target for _, target in named} <= targets, page.name


@each_page
def test_no_page_names_a_place_of_one_machine(page: Path) -> None:
    text = page.read_text("utf-8")
    assert not re.search(r"/tmp/|/home/(?!brainlm)|/work/\w|\.\./shared", text)


def test_the_map_lists_every_room() -> None:
    rooms = {path.parent.name for path in (ROOT / "bids_brainlm").glob("*/__init__.py")}
    table = _prose(ARCHITECTURE).partition("## Rooms")[2].partition("###")[0]
    listed = set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE))
    assert listed == rooms


def test_the_map_shows_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    names = [name.strip(" *").removeprefix("bids_brainlm.") for layer in layers for name in layer.split("|")]
    block = re.findall(r"<!-- generated: layers -->\n```\n(.*?)```", ARCHITECTURE.read_text("utf-8"), flags=re.DOTALL)[0]
    assert re.findall(r"\w+", block) == names
    rooms = {path.parent.name for path in (ROOT / "bids_brainlm").glob("*/__init__.py")}
    assert rooms <= set(names)


def test_the_plug_in_page_lists_every_registry() -> None:
    text = (DOCS / "how-to" / "plugins.md").read_text("utf-8")
    assert all(f"`{registry.kind}`" in text for registry in REGISTRIES)


def test_the_recipe_page_has_the_numbers_of_the_recipe() -> None:
    text = (DOCS / "explanation" / "cortext.md").read_text("utf-8")
    config = load("cortext")
    first, second = config.phases
    assert f"`model.basis_variance` = {config.model.basis_variance}" in text
    assert f"`model.basis_components` = {config.model.basis_components}" in text
    assert f"hidden width {config.model.options['hidden']}" in text
    assert f"`{config.model.llm}`" in text
    assert all(f'"{prompt}"' in text for prompt in config.text.prompts)
    model = config.model
    assert f"rank {model.lora_rank}, alpha {model.lora_alpha}, dropout {model.lora_dropout}" in text
    assert f"| epochs | {first.epochs} | C25 | {second.epochs} |" in text
    assert (first.learning_rate, second.learning_rate, first.l2, second.l2) == (1e-3, 2e-5, 0.2, 5e-4)
    assert "| 1e-3, cosine | C25 | 2e-5, cosine |" in text
    assert "| 0.2 | C25 | 5e-4 | C25 |" in text
    assert f"after {first.patience} epochs" in text
    assert (first.batch_size, second.batch_size, second.precision, first.clip, second.clip) == (25, 25, "nf4", 1.0, 1.0)


def test_the_page_of_brainllm_has_the_numbers_of_the_recipe() -> None:
    text = (DOCS / "explanation" / "brainllm.md").read_text("utf-8")
    config = load("brainllm")
    (first, second), options, window = config.phases, config.model.options, config.window
    assert f"`model.components` = {config.model.components}" in text
    assert f"`{config.model.llm}`" in text
    assert f"{options['layers']} hidden layers of {options['hidden']} units, ReLU, dropout {options['dropout']}" in text
    assert f"standard deviation {options['deviation']}" in text
    assert (window.seconds, window.rows, window.context) == (2.0, 4, (1, 2, 3))
    assert window.lower
    assert "| case | lower" in text
    assert f"the newest words that make at most {config.model.max_prompt_tokens} tokens" in text
    assert f"the first words that make at most {config.model.max_answer_tokens} tokens" in text
    assert (first.objective, second.objective) == ("context_mean_mse", "cross_entropy")
    assert f"| epochs | {first.epochs} | at most {second.epochs} |" in text
    assert (first.learning_rate, second.learning_rate, first.l2, second.l2) == (1e-3, 1e-4, 0, 0)
    assert "| 1e-3, constant | 1e-4, constant |" in text
    assert f"| batch | {first.batch_size} | {second.batch_size} |" in text
    assert f"| largest gradient norm | {first.clip:g} | {second.clip:g} |" in text
    assert f"after {second.patience} epochs" in text
    decode, story = config.decode, config.story
    assert f"{decode.beams} beams, repetition penalty {decode.repetition_penalty}" in text
    assert f"at least {decode.min_new_tokens} and at most {decode.max_new_tokens} new tokens" in text
    assert f"{decode.permutations} permutations" in text
    assert f"{story.beams} beams, {story.extensions} extensions, the last {story.lm_context} tokens" in text


def test_the_simulator_page_has_the_simulator_s_numbers() -> None:
    text = (DOCS / "explanation" / "simulator.md").read_text("utf-8")
    assert f"{AMPLITUDE:g} % for a sustained response" in text
    for factor, words in FACTORS.items():
        assert f"| {factor} | {', '.join(words)} |" in text
    sheet = {name: item.default for name, item in Sheet.__dataclass_fields__.items()}
    assert f"{sheet['radius']:g} mm radius" in text
    assert f"standard deviation {sheet['width']:g} mm" in text


def test_toml_blocks_are_settings() -> None:
    for page in PAGES:
        for block in re.findall(r"^```toml\n(.*?)^```$", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE):
            tree = tomllib.loads(block)
            if "project" not in tree:
                build(tree)


def _python(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


@each_page
def test_python_blocks_are_python(page: Path) -> None:
    for block in _python(str(page.relative_to(DOCS)) if page.is_relative_to(DOCS) else "index.md"):
        if ">>>" not in block:
            compile(block, str(page), "exec")


def test_examples_of_the_api_page_are_right() -> None:
    done = doctest.testfile(str(DOCS / "reference" / "api.md"), module_relative=False)
    assert done.attempted > 5
    assert done.failed == 0


def test_the_metric_of_the_plug_in_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = next(block for block in _python("how-to/plugins.md") if "def first_word" in block)
    (tmp_path / "my_metrics.py").write_text(block, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    metric = metrics.get("my_metrics:first_word")
    assert list(metric(["A dog", "cat runs", ""], [("a cat", "the dog"), ("the cat",), ("x",)])) == [1.0, 0.0, 0.0]


def test_captions_of_coco_become_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stimuli").mkdir()
    tree = {
        "images": [{"id": 7, "file_name": "zebra.jpg"}],
        "annotations": [{"image_id": 7, "caption": "two\tzebras \n"}, {"image_id": 7, "caption": "ein Zebra, zwei Bäume"}],
    }
    (tmp_path / "captions_train2017.json").write_text(json.dumps(tree), encoding="utf-8")
    exec(next(block for block in _python("how-to/texts.md") if "coco" in block), {})
    with (tmp_path / "stimuli" / "captions.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert rows == [["stim_file", "caption"], ["zebra.jpg", "two zebras"], ["zebra.jpg", "ein Zebra, zwei Bäume"]]


def _asked(root: Path, key: str, stimulus: str) -> list[Item]:
    """What the program reads from the table that a block of the page on questions has written."""
    texts = load_texts(root, Text(), pd.DataFrame({key: [stimulus]}), root / "events.tsv")
    return list(texts.items[0])


@pytest.fixture
def questions_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Python blocks of the page on questions, to be run in an empty dataset."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stimuli").mkdir()
    return _python("how-to/questions.md")


def test_conversations_of_llava_become_a_table(tmp_path: Path, questions_page: list[str]) -> None:
    said = ["What is there?\n<image>", "A zebra\ton grass.", "Is it\nalone?", "Yes."]
    turns = [{"from": "gpt" if i % 2 else "human", "value": text} for i, text in enumerate(said)]
    tree = [{"id": "000000000007", "image": "000000000007.jpg", "conversations": turns}]
    (tmp_path / "conversation_58k.json").write_text(json.dumps(tree), encoding="utf-8")
    exec(next(block for block in questions_page if "conversation_58k" in block), {})
    first, second = _asked(tmp_path, "stim_file", "000000000007.jpg")
    assert first == Item("What is there?", "A zebra on grass.", ("A zebra on grass.",), "conversation", ("What is there?",))
    assert (second.question, second.answer) == ("Is it alone?", "Yes.")


def test_questions_of_vqa_become_a_table_of_nsd(tmp_path: Path, questions_page: list[str]) -> None:
    (tmp_path / "nsd_stim_info_merged.csv").write_text(",cocoId,cocoSplit,nsdId\n0,532481,val2017,0\n1,245764,train2017,1\n")
    base = {"image_id": 245764, "question_id": 2457640}
    asked = {"questions": [base | {"question": "What animal is this?"}, {"image_id": 5, "question_id": 50, "question": "Who?"}]}
    given = [
        {"answer": text, "answer_confidence": "yes", "answer_id": i}
        for i, text in enumerate(["zebra"] * 6 + ["horse"] * 3 + ["cow"])
    ]
    rest = {"question_type": "what animal", "answer_type": "other", "multiple_choice_answer": "zebra", "answers": given}
    answers = {"annotations": [base | rest, {"image_id": 5, "question_id": 50} | rest]}
    (tmp_path / "v2_OpenEnded_mscoco_train2014_questions.json").write_text(json.dumps(asked), encoding="utf-8")
    (tmp_path / "v2_mscoco_train2014_annotations.json").write_text(json.dumps(answers), encoding="utf-8")
    exec(next(block for block in questions_page if "nsd_stim_info_merged" in block), {})
    question = "What animal is this?"
    assert _asked(tmp_path, "stim_id", "1") == [Item(question, "zebra", ("zebra", "horse"), "what animal", (question,))]
    rows = (tmp_path / "stimuli" / "questions.tsv").read_text("utf-8").splitlines()
    assert len(rows) == 3


def test_pairs_with_categories_become_a_table(tmp_path: Path, questions_page: list[str]) -> None:
    scope: dict[str, Any] = {}
    exec(next(block for block in questions_page if "def table" in block), scope)
    scope["table"]([(7, "Is there\ta person?", "no", "presence"), (7, "How many?", 2, "count")], tmp_path / "stimuli" / "q.tsv")
    assert [(item.question, item.answer, item.category) for item in _asked(tmp_path, "stim_id", "7")] == [
        ("Is there a person?", "no", "presence"),
        ("How many?", "2", "count"),
    ]


def test_the_fifteen_complaints_are_answered() -> None:
    text = (DOCS / "how-to" / "faq.md").read_text("utf-8")
    first, _, _ = text.partition("\n# More questions\n")
    answers = re.split(r"^## .+$", first, flags=re.MULTILINE)[1:]
    assert len(answers) == 15
    assert all(answer.strip() for answer in answers)


def test_every_option_has_a_place_in_the_reference() -> None:
    """Of options that are hidden nothing would be generated."""
    text = (DOCS / "reference" / "command-line.md").read_text("utf-8")
    assert [flag for param in app.command.params for flag in param.opts if flag.startswith("--") and flag not in text] == []
