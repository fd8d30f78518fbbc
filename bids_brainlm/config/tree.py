"""Every setting, once: its name, default, meaning and flag."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

NO_UNITS: Mapping[str, str] = types.MappingProxyType({})


def setting(
    default: Any,
    help: str,
    *flags: str,
    choices: tuple[str, ...] = (),
    bears: bool = True,
    units: Mapping[str, str] = NO_UNITS,
) -> Any:
    """A dataclass field with its documentation.

    Parameters
    ----------
    default : Any
    help : str
        One sentence, shown by ``--help`` and in the reference.
    *flags : str
        Command line spellings; a setting without one is reached by ``--set`` and TOML.
    choices : tuple of str
        The values allowed, when they are few; of a list, those of its items.
    bears : bool
        Whether results depend on it; only such settings enter the hashes that decide what is computed again.
    units : mapping of str to str
        Flags after which a bare number is of that unit (``--mem-gb 8`` is ``--mem 8G``).
    """
    return field(default=default, metadata=_meta(help, flags, choices, bears, units))


def mapping(help: str) -> Any:
    """A setting that is a table of free names, empty by default; TOML and ``--set`` reach it."""
    return field(default_factory=dict, metadata=_meta(help))


def _meta(
    help: str, flags: tuple[str, ...] = (), choices: tuple[str, ...] = (), bears: bool = True, units: Mapping[str, str] = NO_UNITS
) -> dict[str, Any]:
    return {"help": help, "flags": flags, "choices": choices, "bears": bears, "units": units}


QUERIES = ("bold", "mask", "confounds", "events")
"""Kinds of file that filters may narrow."""

STAGES = ("tune", "estimate", "parcellate", "train", "decode", "information", "evaluate", "where", "story", "reports")
"""What can be skipped; estimate stands for what is made of series, so that it skips cleaning too."""


@dataclass(frozen=True)
class Input:
    """Which recordings are used, and how they are cleaned."""

    space: str = setting(
        "fsaverage", "Space of the BOLD series: fsaverage (any density), T1w, MNI152NLin2009cAsym ...", "--space"
    )
    density: str = setting(
        "", "fsaverage density (3k, 10k, 41k, 164k) to bring surfaces to; empty keeps that of the files.", "--density"
    )
    sessions: tuple[str, ...] = setting((), "Sessions to use; all when empty.", "--session-label", "--session-id")
    tasks: tuple[str, ...] = setting((), "Tasks to use; all that have texts when empty.", "-t", "--task-id", "--task-label")
    runs: tuple[str, ...] = setting((), "Runs to use; all when empty.", "--run-id", "--run-label")
    confounds: tuple[str, ...] = setting(
        ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"),
        "Confound columns to regress out; * and ? are wildcards; a name that matches nothing is an error.",
        "-c", "--confounds",
    )  # fmt: skip
    dummy_scans: int = setting(
        -1, "Volumes to leave out at the start of a run; -1: those fMRIPrep marked non-steady-state.", "--dummy-scans"
    )
    filters: dict[str, Any] = mapping(
        f"Entities that files must have, by query ({', '.join(QUERIES)}); what --bids-filter-file holds."
    )
    projection: str = setting(
        "auto",
        "Runs without fsaverage surfaces, for --space fsaverage: auto brings the best there is (CIFTI, T1w volume, MNI volume) "
        "to the surface, none refuses them.",
        "--projection",
        choices=("auto", "none"),
    )
    depths: int = setting(6, "Depths between white and pial surface, both included, at which a volume is read and averaged.")
    interpolation: str = setting("linear", "How a volume is read between its voxels.", choices=("linear", "nearest"))
    good_voxels: bool = setting(
        False, "Leave voxels out of the projection whose signal varies far more than that of the cortex around."
    )
    drop_missing: bool = setting(
        False, "Leave out runs whose files are not all there instead of stopping with their names.", "--drop-missing"
    )


@dataclass(frozen=True)
class Estimate:
    """How one response a trial is estimated from the BOLD series of a run."""

    estimator: str = setting(
        "lss",
        "Single-trial estimator: lsa and lss look at one run; hrf (a response shape a vertex), denoise (nuisance components), "
        "ridge (fractional ridge) and auto (all that the data allow) choose from all runs of a participant.",
        "--estimator",
    )
    noise_model: str = setting(
        "ols", "Noise of lsa and lss: ols is white, ar1 is autoregressive of order 1.", "--noise-model", choices=("ols", "ar1")
    )
    hrf: str = setting("glover", "Haemodynamic response function.", "--hrf-model", choices=("glover", "spm"))
    hrf_library: str = setting(
        "",
        "TSV of responses that hrf, ridge and auto choose from: a column time (s, from 0, even steps) and one column a response; "
        "our own library when empty.",
        "--hrf-library",
    )
    hrf_choice: str = setting(
        "auto",
        "How the response of a vertex is chosen: cv (cross-validated on repeats), onoff (one regressor for all trials), both, "
        "insample (single trials; biased to wide responses), or auto: both where stimuli repeat across runs, else onoff.",
        choices=("auto", "both", "cv", "onoff", "insample"),
    )
    max_components: int = setting(10, "Largest number of nuisance components that denoise and auto may take.")
    tune_on: str = setting(
        "auto",
        "What hrf, denoise, ridge and auto choose on: train (runs without a test trial), all (every run and repeat), or auto "
        "(every run, but repeats only where training and test share no stimulus). Texts are never seen.",
        "--tune-on",
        choices=("auto", "all", "train"),
    )
    max_fd: float = setting(
        0.0, "Trials whose response window has a larger mean framewise displacement (mm) are not decoded; 0 for no limit."
    )
    max_outliers: float = setting(
        0.0, "Trials with a larger share of outlier volumes in their response window are not decoded; 0 for no limit."
    )
    high_pass: float = setting(0.0078125, "Cut-off of the cosine drift model in Hz.", "--high-pass")
    center: str = setting(
        "run",
        "Mean removed from every vertex, over all trials of a run or session; uses no labels.",
        choices=("run", "session", "none"),
    )


@dataclass(frozen=True)
class Parcels:
    """Which parcels become brain tokens."""

    atlas: str = setting(
        "Schaefer2018:100:7n",
        "Parcellation: kmeans100 (bundled), a TemplateFlow query Name:scale:segmentation, a file or folder, or blocks:N for a "
        "plain matrix.",
        "--atlas", "--atlases",
    )  # fmt: skip
    min_coverage: float = setting(0.5, "Smallest share of usable vertices for a parcel's mean to be written.", "--min-coverage")
    only: tuple[str, ...] = setting(
        (), "Parcels whose vertices are used, all others being left out; * and ? are wildcards; all when empty.", "--only-parcels"
    )


@dataclass(frozen=True)
class Text:
    """Where the texts come from."""

    column: str = setting("", "Column of events.tsv that holds the text itself.", "--text-column")
    key: str = setting("", "Column of events.tsv that names the stimulus (stim_file, trial_type, ...).", "--key-column")
    table: tuple[str, ...] = setting(
        (),
        "TSV of texts joined to the key, relative to the BIDS folder; several rows a key are several references. Of several TSVs,"
        " such as captions and questions, the rows are put together.",
        "--texts",
    )
    answer: str = setting("", "Column of the table that holds the text (caption or answer); discovered when empty.")
    question: str = setting("", "Column of the table that holds a question; none when empty and there is no column 'question'.")
    category: str = setting(
        "", "Column of the table that holds the kind of a question; 'category', where there is one, when empty."
    )
    task: str = setting(
        "",
        "Column of the table whose value the phrasings of one question share; 'task', where there is one, when empty. In training"
        " one phrasing is drawn at random, the first is decoded.",
    )
    mix: dict[str, Any] = mapping(
        "Weights of the kinds of text in training: caption, question (any), or a category of questions. An epoch then has each"
        " trial once, with one of its texts, of a kind drawn by these weights; kinds without a weight are not trained on. When"
        " empty, an epoch has every text of a trial."
    )
    prompts: tuple[str, ...] = setting(
        ("Describe the following image.",),
        "Instruction(s) for texts that have no question of their own; drawn at random in training.",
        "--prompt",
    )


WORDS = ("", "auto", "events", "table", "textgrid", "align")
"""Where words with times come from; empty: there are none, a trial has one text."""


@dataclass(frozen=True)
class Window:
    """Language over time: how words and volumes become examples."""

    words: str = setting(
        "",
        "Where words with their times come from: events (a row a word), table (a TSV beside the stimulus), textgrid, align "
        "(tables of the Gentle aligner), or auto, the first of these; empty where a trial has one text.",
        "--words",
        choices=WORDS,
    )
    transcripts: str = setting(
        "", "Folder of tables, TextGrids or alignments, relative to the BIDS folder; looked for when empty.", "--transcripts"
    )
    tier: str = setting("word", "Tier of a TextGrid that holds the words.")
    column: str = setting("word", "Column of events.tsv, or of a table, that holds the words.")
    story: str = setting("", "Column of events.tsv that names the story; stim_file, else the task, when empty.")
    start: float = setting(
        0.0,
        "Seconds at which the story begins, in the time of the events, in runs whose events name no story (it is the task then).",
    )
    seconds: float = setting(2.0, "Length of a window of words, in s.")
    lag: float = setting(2.0, "Seconds from the start of a window to the first volume it is decoded from.")
    rows: int = setting(4, "Volumes that a window is decoded from, one after the other.")
    context: tuple[int, ...] = setting(
        (1, 2, 3), "Numbers of earlier windows whose words stand in the prompt; each gives an example of its own."
    )
    chunks: int = setting(
        0,
        "Chunks of words that the text of a trial is cut into; all but the first are decoded, each from the response to the whole"
        " text, with the chunks before it as context. 0 leaves texts whole.",
    )
    lower: bool = setting(False, "Words of windows and chunks in lower case, those of their contexts too.")


@dataclass(frozen=True)
class Splits:
    """Which examples are trained on, which choose the epoch, which are decoded."""

    group: str = setting(
        "stimulus",
        "What must not be shared between parts: stimulus, story (of words with times), run, session, or a column of events.tsv.",
        "--group",
    )
    scheme: str = setting(
        "single",
        "single, kfold (pooled out-of-fold predictions), column, list, blocks (of time, with a gap), or leaky-random (as in "
        "released code of BrainLLM; its results mean nothing but how much a leak is worth).",
        "--split",
        choices=("single", "kfold", "column", "list", "blocks", "leaky-random"),
    )
    folds: int = setting(
        -1,
        "Number of folds for kfold and blocks; 0 leaves one group or block out at a time; -1: 5 for kfold, one split for blocks.",
        "--folds",
    )
    test: float = setting(0.2, "Share of groups in the test set of a split that is not one of several folds.")
    validation: float = setting(0.1, "Share of the remaining groups kept apart to choose the epoch.")
    source: str = setting(
        "",
        "For scheme column: a column of events.tsv holding train, validation, test. For list: a TSV with columns group, split.",
    )
    block: float = setting(60.0, "Length in s of the blocks that the scheme blocks cuts stories into.")
    amount: float = setting(1.0, "Share of the training groups that are trained on.")
    leave_out: str = setting(
        "",
        "Zero-shot: categories of the facts that are left out of training, by label and by word, as factor=label[,label];"
        " the test set keeps them.",
    )
    leave_out_questions: tuple[str, ...] = setting(
        (),
        "Categories or wordings of questions that are left out of training, in all their phrasings; the test set keeps them.",
    )
    shuffle_pairs: bool = setting(
        False,
        "Control: training and validation texts have each other's responses, at random, so that only texts can be learned from;"
        " test pairs stay.",
    )
    average: tuple[str, ...] = setting(
        (), "Parts in which the repeats of a stimulus are averaged.", choices=("train", "validation", "test")
    )


@dataclass(frozen=True)
class Model:
    """The language model, and how brain tokens enter it."""

    llm: str = setting(
        "Qwen/Qwen2.5-1.5B-Instruct",
        "Hugging Face name or folder of a causal language model.",
        "--llm",
        "--model-id",
        "--model-dir",
    )
    revision: str = setting("", "Revision (commit or tag) of the language model; the newest when empty.")
    style: str = setting("chat", "How prompt, brain tokens and answer are laid out.")
    max_prompt_tokens: int = setting(
        0, "Longest text (question, or the words before a window or chunk) of a prompt, in tokens: its newest words; 0 for any."
    )
    max_answer_tokens: int = setting(
        0, "Longest text that is trained on and scored by its likelihood, in tokens: its first words; 0 for any."
    )
    tokenizer: str = setting("parcelwise", "Brain tokenizer.", "--tokenizer")
    options: dict[str, Any] = mapping("Options of the tokenizer.")
    markers: bool = setting(False, "Learned vectors before and after the brain tokens (parameter group markers).")
    components: int = setting(0, "Principal components kept of the features; 0 keeps every vertex.")
    basis_variance: float = setting(0.97, "Share of variance of the training texts' token embeddings kept in the token basis.")
    basis_components: int = setting(921, "Largest number of components of the token basis.")
    vertex_dropout: float = setting(0.0, "Probability that a vertex is set to its mean in training.")
    vertex_noise: float = setting(0.0, "Standard deviation of Gaussian noise added to z-scored vertices in training.")
    lora_rank: int = setting(16, "Rank of LoRA.")
    lora_alpha: int = setting(16, "Scale of LoRA.")
    lora_dropout: float = setting(0.05, "Dropout of LoRA.")
    lora_targets: tuple[str, ...] = setting(("q", "v"), "Attention projections that get LoRA: q, k, v, o.")


GROUPS = ("tokenizer", "markers", "norms", "lora", "all")


@dataclass(frozen=True)
class Phase:
    """One stage of training: which parameter groups move, for how long, at which precision of the language model."""

    name: str = setting("phase", "Name, shown in curves and checkpoints.")
    train: tuple[str, ...] = setting(("tokenizer",), "Parameter groups that move.", choices=GROUPS)
    objective: str = setting("cross_entropy", "Objective.")
    solver: str = setting(
        "adamw",
        "adamw: steps down the gradient; ridge: closed form with a penalty chosen on the validation examples, for the warm-up of"
        " a tokenizer that is linear (what else is set for the phase then has no effect but batch_size).",
        choices=("adamw", "ridge"),
    )
    epochs: int = setting(20, "Largest number of passes over the training examples.")
    patience: int = setting(0, "Epochs without a better validation loss before the phase ends; 0 never stops early.")
    learning_rate: float = setting(1e-3, "Peak learning rate.")
    schedule: str = setting("cosine", "Learning rate over the phase.", choices=("cosine", "constant"))
    warmup: float = setting(0.0, "Share of steps over which the learning rate rises linearly.")
    l2: float = setting(0.0, "Decoupled weight decay (AdamW) of the tokenizer.")
    batch_size: int = setting(25, "Examples a step.")
    accumulation: int = setting(1, "Batches whose gradients are summed before a step.")
    clip: float = setting(1.0, "Largest norm of the gradient; 0 for none.")
    precision: str = setting(
        "auto", "Precision of the language model: auto is bf16 on a GPU, fp32 on CPU.", choices=("auto", "fp32", "bf16", "nf4")
    )


@dataclass(frozen=True)
class Decode:
    """How text is generated and scored."""

    max_new_tokens: int = setting(32, "Longest generated text, in tokens.")
    min_new_tokens: int = setting(0, "Shortest generated text, in tokens.")
    beams: int = setting(1, "Beams; 1 is greedy.")
    repetition_penalty: float = setting(1.0, "Penalty on tokens already generated; 1 for none.")
    permutations: int = setting(1000, "Permutations behind p values of likelihoods.", "--permutations")
    pairs: int = setting(
        300_000,
        "Most likelihoods of a text under a brain that are computed in a fold; with more pairs, those of as many random"
        " exchanges as that allows (19 at least) instead of all.",
    )
    controls: tuple[str, ...] = setting(
        ("permuted_across", "mean", "noise", "noise_covariance", "phase_shuffled"),
        "Interventions under which the right texts are scored too, beside permuted brains and none.",
    )
    batch_size: int = setting(50, "Examples decoded together.")


@dataclass(frozen=True)
class Evaluate:
    """Which figures are reported."""

    metrics: tuple[str, ...] = setting(
        ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "wer", "facts"), "Metrics of generated text.", "--metrics"
    )
    facts: str = setting(
        "",
        "TSV of facts, relative to the BIDS folder: a key column and one column a factor with the word(s) that name it.",
        "--facts",
    )
    embeddings: str = setting(
        "",
        "Folder of a sentence-transformers model whose embeddings linear readouts of words with times and of chunks predict; bags"
        " of words of the training texts when empty. The metric embedding_similarity needs it.",
        "--embeddings",
    )
    bertscore: str = setting("", "Folder of a masked language model for the metric bertscore.", "--bertscore")
    clip: str = setting("", "Folder of a CLIP model for the metrics clipscore and refclipscore.", "--clip")
    judge: str = setting(
        "", "Language model for the metric judge: a folder, or a Hugging Face name that was fetched before.", "--judge"
    )
    information: bool = setting(
        False,
        "Measure in bits what the brain adds to a text-only model, which is trained for it: costs as much as training again.",
        "--information",
    )
    where: bool = setting(
        False,
        "Show where in the brain: regions masked, contributions of vertices, attention to brain tokens, of the decoder as it is.",
        "--where",
        bears=False,
    )
    where_texts: int = setting(50, "Most test texts of a fold that this is done for.", bears=False)
    bootstrap: int = setting(2000, "Bootstrap samples behind the 95 % intervals.")
    readout: tuple[str, ...] = setting(("ridge", "logistic"), "Linear readouts of the facts from the same betas, for comparison.")
    baselines: tuple[str, ...] = setting(
        (),
        "Simple decoders beside: nearest_text says the text whose embedding is most like what ridge regression predicts,"
        " nearest_response the text of the most similar training response.",
        "--baselines",
        choices=("nearest_text", "nearest_response"),
    )
    corpus: str = setting(
        "",
        "Texts that nearest_text may say, one a line, relative to the BIDS folder; the training texts when empty.",
        "--corpus",
    )


@dataclass(frozen=True)
class Story:
    """Reconstruction of whole stories from a decoder's own text so far."""

    decoders: tuple[str, ...] = setting(
        (), "Story decoders to run on test stories: generate (BrainLLM), encoding (Tang et al. 2023); none when empty.",
        "--story-decoder",
    )  # fmt: skip
    beams: int = setting(5, "Hypotheses kept.")
    extensions: int = setting(5, "Continuations tried of the best hypothesis; worse ones get fewer.")
    lm_context: int = setting(32, "Tokens of a hypothesis that the language model sees.")
    seconds: float = setting(20.0, "Length in s of the windows in which texts are compared.")
    null_texts: int = setting(10, "Texts by the language model alone, at the same word rate, that metrics are compared with.")
    permutations: int = setting(1000, "Circular shifts of windows behind p values.")


@dataclass(frozen=True)
class Compat:
    """What the released code of BrainLLM does and this package otherwise does not; off unless its figures are to be matched."""

    oldest_prompt: bool = setting(False, "Prompts longer than model.max_prompt_tokens keep their oldest words.")
    padded_warmup: bool = setting(False, "Padding counts in the mean embedding that the warm-up aims at.")
    recall_rouge: bool = setting(False, "The recall of ROUGE is reported beside its F1.")
    truncated: bool = setting(
        False, "Metrics are reported a second time, of predictions that are cut to as many words as the reference has."
    )


@dataclass(frozen=True)
class Run:
    """How the work is carried out; nothing here changes a result but the seed."""

    random_seed: int = setting(42, "Seed of everything random.", "--random-seed", "--seed")
    device: str = setting("auto", "Device to train and decode on.", "--device", choices=("auto", "cpu", "cuda"), bears=False)
    offline: bool = setting(False, "Never look for models or templates on the network.", "--offline", bears=False)
    nprocs: int = setting(0, "Processes in all; 0 uses every core.", "--nprocs", "--nthreads", "--n-cpus", bears=False)
    omp_nthreads: int = setting(1, "Threads of one process.", "--omp-nthreads", bears=False)
    memory: str = setting(
        "",
        "Memory that may be planned with: 12G, 500M, or a bare number of MB (of GB after --mem-gb); empty takes 90 % of what job "
        "and machine allow.",
        "--mem", "--mem-mb", "--mem-gb",
        bears=False,
        units={"--mem-gb": "G"},
    )  # fmt: skip
    low_mem: bool = setting(
        False,
        "Spare memory: responses on disk, activations computed again in training, one heavy stage at a time.",
        "--low-mem",
        bears=False,
    )
    skip: tuple[str, ...] = setting(
        (),
        "Stages not to run, with all that need them.",
        "--skip",
        choices=STAGES,
        bears=False,
    )
    stop_on_first_crash: bool = setting(
        False, "Stop at the first failure instead of finishing the other participants.", "--stop-on-first-crash", bears=False
    )


@dataclass(frozen=True)
class Config:
    """The whole tree."""

    input: Input = field(default_factory=Input)
    estimate: Estimate = field(default_factory=Estimate)
    parcels: Parcels = field(default_factory=Parcels)
    text: Text = field(default_factory=Text)
    window: Window = field(default_factory=Window)
    split: Splits = field(default_factory=Splits)
    model: Model = field(default_factory=Model)
    phases: tuple[Phase, ...] = ()
    decode: Decode = field(default_factory=Decode)
    evaluate: Evaluate = field(default_factory=Evaluate)
    story: Story = field(default_factory=Story)
    compat: Compat = field(default_factory=Compat)
    run: Run = field(default_factory=Run)


SECTIONS: dict[str, type[Any]] = {
    "input": Input,
    "estimate": Estimate,
    "parcels": Parcels,
    "text": Text,
    "window": Window,
    "split": Splits,
    "model": Model,
    "decode": Decode,
    "evaluate": Evaluate,
    "story": Story,
    "compat": Compat,
    "run": Run,
}

SLOPPY: dict[str, Any] = {"phases.N.epochs": 1, "decode.pairs": 2000, "evaluate.bootstrap": 50}
"""What ``--sloppy`` sets, after the file and before the flags; ``N`` is every phase."""


def settings() -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """Every setting of every section but the phases: (dotted name, dataclass field, type)."""
    for section, cls in SECTIONS.items():
        hints = typing.get_type_hints(cls)
        for item in dataclasses.fields(cls):
            yield f"{section}.{item.name}", item, hints[item.name]
