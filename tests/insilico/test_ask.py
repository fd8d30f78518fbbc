"""Answers and their evidence are those of plain passes of the model; a fluent guess is called one."""

from __future__ import annotations

import builtins
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bids_brainlm.cli import companion
from bids_brainlm.cli.ask import command
from bids_brainlm.config import Config, Request, load
from bids_brainlm.core.types import Examples, Prompt, Recording, Split
from bids_brainlm.errors import InputError, MissingInputError
from bids_brainlm.evaluation.decoding import N_OTHERS
from bids_brainlm.insilico import ask, participant
from bids_brainlm.insilico.answers import ANSWER_COLUMNS, Answer, Evidence, Trial
from bids_brainlm.insilico.ask import Conversation, others_of
from bids_brainlm.insilico.participant import Participant
from bids_brainlm.language.limits import Limits, shortened
from bids_brainlm.language.render import as_one_text, decode, render_conversation, stop_ids
from bids_brainlm.models.fusion import BrainLM, collate
from bids_brainlm.stages.decoder import Decoder

V = 12
CAPTIONS = ["A red bird sits.", "Two dogs run.", "The sun sets in the park.", "A wooden fence.", "A helpful animal."]
CAPTIONS += ["A dog on the beach.", "A picture.", "What a bird."]
# Most stimuli twice; runs 0 and 1 are trained and validated on, 2 and 3 held out. The first held-out trial has a question, too.
STIMULUS = np.array([0, 1, 0, 2, 1, 2, 3, 3, 4, 4, 5, 6, 5, 7, 6])
RUN = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3])
CAPTION = Prompt("Describe the following image.", "", "caption", ("Describe the following image.", "What is it?"))
QUESTIONS = ["Which animal is it?", "What colour?", "Where does it sit?"]


def trials() -> Examples:
    data = np.random.default_rng(1).standard_normal((len(RUN), V)).astype(np.float32)
    rows = np.append(np.arange(len(RUN)), 8)
    stimulus = STIMULUS[rows]
    names = np.array([f"sub-01_run-{run}_trial-{i:02d}" for i, run in enumerate(RUN)] + ["sub-01_run-2_trial-08_q-2"])
    prompts = [dataclasses.replace(CAPTION, answer=CAPTIONS[k]) for k in stimulus[:-1]]
    references = [(CAPTIONS[k], f"{CAPTIONS[k]} Yes.") for k in stimulus[:-1]]
    return Examples(
        Recording(data, "percent signal change", "beta", np.arange(len(RUN)), RUN),
        rows,
        (*prompts, Prompt("Which animal is it?", "a bird", "animal")),
        (*references, ("a bird",)),
        np.array([f"stim{k}" for k in stimulus]),
        np.array([f"stim{k}" for k in stimulus]),
        names,
    )


def short(config: Config) -> Config:
    return dataclasses.replace(config, decode=dataclasses.replace(config.decode, max_new_tokens=6))


@pytest.fixture
def opened(decoders: Callable[[str], Decoder], tmp_path: Path) -> Callable[..., Participant]:
    """``opened(**settings of the model)`` -> participant with one fold, whose decoder has random weights."""

    def make(**model: Any) -> Participant:
        config = short(load("cortext-small"))
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, **model))
        request = Request(tmp_path, tmp_path / "out", "participant", ("01",), {}, tmp_path, config)
        found = Participant("01", request, (tmp_path / "model",), {0: decoders("parcels")})
        split = Split(trials(), np.array([0, 1, 2, 4]), np.array([6, 7]), np.arange(8, 16))
        vars(found)["folds"] = (split,)
        return found

    return make


def plain(model: BrainLM, data: Any, rendered: Any) -> float:
    return float(model.nll(collate([rendered], data))[0])


def generated(opened: Participant, turns: list[Prompt], style: str, brain: int | None) -> str:
    fitted = opened.decoder(0)
    item = render_conversation(turns, fitted.text, 0 if brain is None else 3, style, with_answer=False)
    data = None if brain is None else opened.examples.gather([brain])
    ids = fitted.model.generate(collate([item], data, pad_left=True), stop=stop_ids(fitted.text, style), max_new_tokens=6)
    return decode(ids[0], fitted.text)


def evidence_of(opened: Participant, turns: list[Prompt], style: str, brains: list[int]) -> tuple[list[float], float]:
    fitted = opened.decoder(0)
    item, alone = (render_conversation(turns, fitted.text, n, style) for n in (3, 0))
    nll = [plain(fitted.model, opened.examples.gather([brain]), item) for brain in brains]
    return nll, plain(fitted.model, None, alone)


@pytest.mark.parametrize("style", ["chat", "continuation"])
def test_answers_and_evidence_are_those_of_plain_passes(opened: Callable[..., Participant], style: str) -> None:
    who = opened(style=style)
    index = {str(name): i for i, name in enumerate(who.examples.id)}
    conversation = Conversation(who, "run-2_trial-10")
    own, others = index[conversation.trial.id], [index[name] for name in conversation.others]
    assert own == 10
    turns: list[Prompt] = []
    for k, question in enumerate([*QUESTIONS, "What is it?"]):
        answer = conversation.ask(question)
        now = [*turns, Prompt(question, "")]
        assert answer.turn == k + 1
        assert answer.text == generated(who, now, style, own)
        assert answer.none == generated(who, now, style, None)
        assert answer.permuted == generated(who, now, style, index[answer.partner])
        assert answer.partner in conversation.others
        turns = [*turns, Prompt(question, answer.text)]
        nll, none = evidence_of(who, turns, style, [own, *others])
        wanted = Evidence(1 + sum(v < nll[0] for v in nll[1:]), len(nll), float(np.mean(nll[1:]) - nll[0]), nll[0], none)
        assert dataclasses.astuple(answer.evidence) == pytest.approx(dataclasses.astuple(wanted), abs=1e-4)
        assert np.ptp(nll) > 1e-3
        # The last question is that of training: the right answer is known, in the same conversation.
        if k < 3 or style == "continuation":
            assert (answer.right, answer.references) == (None, ())
    if style == "chat":
        told = [*turns[:-1], Prompt("What is it?", answer.references[0])]
        nll, none = evidence_of(who, told, style, [own, *others])
        assert answer.references == who.examples.references[10]
        assert answer.right is not None
        assert (answer.right.nll, answer.right.nll_none) == pytest.approx((nll[0], none), abs=1e-4)
        assert answer.right.rank == 1 + sum(v < nll[0] for v in nll[1:])


def test_the_brain_is_read_once(opened: Callable[..., Participant], monkeypatch: pytest.MonkeyPatch) -> None:
    who, read = opened(), []
    original = BrainLM.brain_tokens
    monkeypatch.setattr(BrainLM, "brain_tokens", lambda self, v: read.append(len(v)) or original(self, v))
    conversation = Conversation(who, "run-2_trial-08")
    for question in QUESTIONS:
        conversation.ask(question)
    assert read == [1 + len(conversation.others)]


def test_what_was_said_can_be_forgotten(opened: Callable[..., Participant]) -> None:
    who = opened()
    conversation = Conversation(who, "run-3_trial-13")
    first, later = conversation.ask(QUESTIONS[0]), conversation.ask(QUESTIONS[1])
    conversation.restart()
    again = conversation.ask(QUESTIONS[1])
    anew = Conversation(who, "run-3_trial-13").ask(QUESTIONS[1])
    assert again == dataclasses.replace(anew, evidence=again.evidence)
    assert dataclasses.astuple(again.evidence) == pytest.approx(dataclasses.astuple(anew.evidence), abs=1e-4)
    assert (first.turn, later.turn, again.turn) == (1, 2, 1)
    assert abs(again.evidence.nll - later.evidence.nll) > 1e-3


def test_others_are_of_the_same_part_and_run(opened: Callable[..., Participant]) -> None:
    split = opened().folds[0]
    stimulus, run = split.examples.stimulus, split.examples.run
    for part, index in (("test", 8), ("test", 9), ("test", 10), ("train", 1), ("validation", 6), ("unused", 3)):
        found = others_of(split, part, index)
        pool = getattr(split, part if part != "unused" else "test")
        wanted = [i for i in pool if stimulus[i] != stimulus[index]]
        wanted = [i for i in wanted if run[i] == run[index]] or wanted
        # Two texts may have one brain, which is compared with once.
        assert sorted(found.tolist()) == sorted({8 if i == 15 else i for i in wanted}), (part, index)
    # Both trials of validation show one stimulus; an unused one has nobody of its run among those held out.
    assert others_of(split, "validation", 6).size == 0
    assert others_of(split, "unused", 3).size == 7
    with pytest.raises(InputError, match="no other trial can be compared with sub-01_run-1_trial-06"):
        Conversation(opened(), "run-1_trial-06")


def test_a_decoder_that_ignores_the_brain_is_found_out(opened: Callable[..., Participant]) -> None:
    who = opened()
    features = who.decoder(0).model.features
    assert features is not None
    features.gain.zero_()
    found = Conversation(who, "run-2_trial-10").ask()
    n = found.evidence.n_brains
    assert n > 2
    assert found.evidence.rank == (n + 1) / 2
    assert found.evidence.specificity == pytest.approx(0, abs=1e-5)
    assert found.permuted == found.text
    assert "the same answer comes from the brain of another trial" in found.doubts
    assert f"{(n - 1) / 2:g} of {n - 1} other brains make this answer likelier" in found.doubts


def test_an_answer_without_a_brain_is_told_when_it_is_the_same(opened: Callable[..., Participant]) -> None:
    trial = Trial("t", "s", "test", 0, False)
    sure = Answer(trial, 1, "q", "A dog", "a cat", "a cow", "u", Evidence(1, 20, 3, 1, 5))
    assert sure.doubts == ()
    assert dataclasses.replace(sure, none=" a  DOG").doubts == ("the same answer comes without a brain",)
    assert dataclasses.replace(sure, permuted="a dog").doubts == ("the same answer comes from the brain of another trial",)
    low = dataclasses.replace(sure, evidence=Evidence(3.5, 20, -0.5, 2, 5))
    assert low.doubts == ("2.5 of 19 other brains make this answer likelier",)
    assert "rank 3.5 of 20 brains, 0.50 nats less likely than under the others" in str(low)
    for part, word in (("train", "training trial"), ("validation", "validation trial"), ("unused", "in no part")):
        other = dataclasses.replace(trial, part=part)
        assert word in dataclasses.replace(sure, trial=other).doubts[0]
    leaky = dataclasses.replace(sure, trial=dataclasses.replace(trial, leaky=True))
    assert leaky.doubts == ("the split lets something of test trials through to training",)


def test_trials_are_marked_by_their_part(opened: Callable[..., Participant]) -> None:
    who = opened()
    for name, word in (("run-0_trial-00", "TRAINED ON"), ("run-2_trial-09", "held out"), ("run-0_trial-03", "unused")):
        assert word in str(Conversation(who, name).trial)
    assert any("training trial" in doubt for doubt in Conversation(who, "run-0_trial-00").ask().doubts)


def test_a_trial_is_found_by_id_stimulus_or_text(opened: Callable[..., Participant]) -> None:
    who = opened()
    for text, index in (
        ("", 8),  # the first that is held out
        ("sub-01_run-0_trial-02", 2),
        ("run-3_trial-13", 13),
        ("stim6", 11),
        ("stim2", 3),  # in no part
        ("WOODEN", 6),
        ("dog", 10),  # trained on come later
        ("run-2_trial-08", 8),
        ("sub-01_run-2_trial-08_q-2", 15),
    ):
        assert ask.choose(who, text) == index, text
    # Two texts about one trial are one brain.
    assert ask.fitting(who, "run-2_trial-08").tolist() == [8]
    with pytest.raises(MissingInputError, match=r"no trial 'stimm6'; did you mean 'stim6'\?"):
        ask.choose(who, "stimm6")


def test_right_answers_are_those_of_the_question(opened: Callable[..., Participant]) -> None:
    conversation = Conversation(opened(), "sub-01_run-2_trial-08")
    assert conversation.ask("which  animal is it?").references == ("a bird",)
    assert conversation.ask("What is it?").references == (CAPTIONS[4], f"{CAPTIONS[4]} Yes.")
    assert conversation.ask().question == CAPTION.context
    assert conversation.ask("What colour?").right is None


def test_a_text_just_goes_on(opened: Callable[..., Participant]) -> None:
    conversation = Conversation(opened(style="continuation"), "run-2_trial-10")
    assert conversation.goes_on
    first, second = conversation.ask("The sun"), conversation.ask()
    assert second.question == ""
    assert second.text == generated(opened(), [Prompt("The sun", first.text), Prompt("", "")], "continuation", 10)


@pytest.mark.parametrize("style", ["chat", "continuation"])
def test_prompts_are_as_short_as_those_of_training(opened: Callable[..., Participant], style: str) -> None:
    who, limits = opened(style=style, max_prompt_tokens=6, max_answer_tokens=4), Limits(6, 4)
    conversation, text = Conversation(who, "run-2_trial-10"), who.decoder(0).text
    long = "the park while the sun sets and"
    turns = [Prompt(long, conversation.ask(long).text), Prompt("red", "")]
    second = conversation.ask("red")
    turns[1] = Prompt("red", second.text)
    short = [shortened(turn, limits, text) for turn in (turns if style == "chat" else [as_one_text(turns, style)])]
    (nll, *_), none = evidence_of(who, short, style, [10])
    assert (second.evidence.nll, second.evidence.nll_none) == pytest.approx((nll, none), abs=1e-4)
    assert abs(evidence_of(who, turns, style, [10])[0][0] - nll) > 1e-2


def test_a_conversation_that_is_too_long_is_refused(opened: Callable[..., Participant]) -> None:
    conversation = Conversation(opened(), "run-2_trial-10")
    with pytest.raises(InputError, match=r"takes \d+ tokens with its answer, and the language model reads 256"):
        conversation.ask("bird " * 300)
    assert conversation.ask("bird").turn == 1


def test_half_characters_are_no_obstacle(opened: Callable[..., Participant]) -> None:
    assert Conversation(opened(), "run-2_trial-10").ask("caf\udce9?").question == "caf??"


def test_ranks_of_right_answers_are_uniform_where_responses_tell_nothing(
    decoders: Callable[[str], Decoder], tmp_path: Path
) -> None:
    """And those of generated ones are not: an answer is made from its brain, however little that tells."""
    n = 40
    who = Participant("01", Request(tmp_path, tmp_path, "participant", ("01",), {}, tmp_path, short(load("cortext-small"))), ())
    who._decoders[0] = decoders("parcels")
    rng = np.random.default_rng(3)
    names = np.array([f"t{i}" for i in range(n)])
    texts = [f"{i} {' '.join(rng.permutation(['a', 'red', 'bird', 'sits', 'on', 'the', 'fence']))}" for i in range(n)]
    data = rng.standard_normal((n, V)).astype(np.float32)
    recording = Recording(data, "percent signal change", "beta", np.arange(n), np.zeros(n))
    prompts, references = tuple(Prompt("What?", text) for text in texts), tuple((text,) for text in texts)
    examples = Examples(recording, np.arange(n), prompts, references, names, names, names)
    nobody = np.zeros(0, dtype=np.int64)
    vars(who)["folds"] = (Split(examples, nobody, nobody, np.arange(n)),)
    answers = [Conversation(who, name).ask() for name in names]
    right, made = (np.array([getattr(a, kind).rank for a in answers]) for kind in ("right", "evidence"))
    # Twenty brains: mean 10.5 and a standard error of 5.77 / sqrt(n).
    assert abs(right.mean() - 10.5) < 3 * 5.77 / np.sqrt(n)
    assert made.mean() < 10.5 - 3 * 5.77 / np.sqrt(n)


def test_a_record_has_the_documented_names(opened: Callable[..., Participant]) -> None:
    conversation = Conversation(opened(), "run-2_trial-10")
    for question in ("", "Where?"):
        record = conversation.ask(question).record()
        assert tuple(record) == tuple(ANSWER_COLUMNS)
        assert json.loads(json.dumps(record)) == {**record, "doubts": list(record["doubts"])}
    assert record["right_rank"] is None


def test_a_text_cannot_command_the_terminal() -> None:
    evil = "dog\x1b[2J\n  rank 1 of 99\u202e\x9b"
    trial = Trial(evil, evil, "test", 0, False)
    lines = str(Answer(trial, 1, evil, evil, evil, evil, evil, Evidence(1, 2, 3, 1, 5), (evil,), Evidence(1, 2, 3, 1, 5)))
    assert all(c.isprintable() for c in lines.replace("\n", "") + str(trial))
    assert sum("rank 1 of 99" in line for line in lines.splitlines()) == 4
    assert len(lines.splitlines()) == 7


# The command ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def called(
    opened: Callable[..., Participant], monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> Callable[..., Any]:
    """``called(*arguments, typed=lines)`` -> exit code, stdout, stderr."""
    who = opened()
    monkeypatch.setattr(participant, "open_participant", lambda *args, **given: who)

    def call(*args: str, typed: tuple[str, ...] = ()) -> tuple[int, str, str]:
        lines = iter(typed)

        def line(prompt: str = "") -> str:
            try:
                return next(lines)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr(builtins, "input", line)
        code = companion.main(["ask", str(tmp_path), "--participant-label", "01", *args])
        return (code, *capsys.readouterr())

    return call


def test_questions_of_a_script_are_answered_in_json(called: Any, opened: Callable[..., Participant]) -> None:
    code, out, err = called("--trial", "run-2_trial-10", "stim7", "--question", QUESTIONS[0], QUESTIONS[1])
    assert (code, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    assert [(row["trial"][-8:], row["turn"], row["question"]) for row in found] == [
        (trial, turn, QUESTIONS[turn - 1]) for trial in ("trial-10", "trial-13") for turn in (1, 2)
    ]
    assert {row["participant"] for row in found} == {"01"}
    conversation = Conversation(opened(), "run-2_trial-10")
    wanted = [conversation.ask(question).record() for question in QUESTIONS[:2]]
    assert [row["rank"] for row in found[:2]] == [row["rank"] for row in wanted]
    alone = called("--trial", "run-2_trial-10", "--question", QUESTIONS[0], QUESTIONS[1], "--alone", "--brains", "2")[1]
    rows = [json.loads(line) for line in alone.splitlines()]
    assert [row["turn"] for row in rows] == [1, 1]
    assert [row["n_brains"] for row in rows] == [3, 3]
    assert rows[0]["answer"] == wanted[0]["answer"]


def test_a_trial_that_is_not_there_ends_with_its_code(called: Any) -> None:
    code, out, err = called("--trial", "stimm6", "--question", "x")
    assert (code, out) == (66, "")
    assert "no trial 'stimm6'; did you mean 'stim6'?" in err
    assert len(err.splitlines()) == 1


def test_a_conversation_in_the_terminal(called: Any) -> None:
    typed = (
        "",
        "Which animal is it?",
        "/new",
        "/find dog",
        "/trial stim7",
        "What?",
        "/trial nobody",
        "/fnd x",
        "/help",
        "/quit",
        "x",
    )
    code, out, err = called(typed=typed)
    assert code == 0
    assert err.splitlines() == [line for line in err.splitlines() if "no trial 'nobody'" in line]
    lines = out.splitlines()
    assert "trial-08, stimulus stim4: held out in fold 0" in lines[0]
    assert "Enter alone asks" in lines[1]
    assert sum(line.startswith("  rank ") for line in lines) == 3
    assert [line[7:21] for line in lines if "dog" in line and "fold 0:" in line] == [
        f"run-{run}_trial-{i}" for run, i in ((2, 10), (3, 12), (0, "01"), (1, "04"))
    ]
    assert "no command '/fnd'; did you mean '/find'?" in lines
    assert sum(line.startswith("/quit") for line in lines) == 2


def test_the_question_is_shown_to_one_who_did_not_type_it(called: Any) -> None:
    out = called(typed=("", "What?"))[1].splitlines()
    assert out[2] == "(Describe the following image.)"
    assert "(What?)" not in out


def test_trials_and_alone_go_with_questions(called: Any) -> None:
    for given in (("--trial", "stim7", "stim6"), ("--alone",)):
        code, _, err = called(*given)
        assert code == 2
        assert "go with --question" in err


def test_a_running_text_says_that_it_is_continued(called: Any, opened: Callable[..., Participant], monkeypatch: Any) -> None:
    who = opened(style="continuation")
    monkeypatch.setattr(participant, "open_participant", lambda *args, **given: who)
    assert "what you write is continued" in called(typed=("/quit",))[1]


def test_the_usual_number_of_brains_is_that_of_confidence() -> None:
    assert next(item.default for item in command.params if item.name == "brains") == N_OTHERS
