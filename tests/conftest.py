"""Fixtures of every test: where the real data are, that nothing reaches for the network, and what metrics may need."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TEMPLATEFLOW_AUTOUPDATE", "off")


def _data_folder() -> Path | None:
    named = os.environ.get("BRAINLM_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    return folder if (folder / "README.md").is_file() else None


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data (``BRAINLM_TEST_DATA``, else ``../shared/data`` beside the checkout)."""
    folder = _data_folder()
    if folder is None:
        if os.environ.get("BRAINLM_TEST_DATA"):
            pytest.fail(f"BRAINLM_TEST_DATA is {os.environ['BRAINLM_TEST_DATA']!r}, which holds no README.md of the test data")
        pytest.skip("needs the real data: set BRAINLM_TEST_DATA to its folder")
    return folder


VOCABULARY = """
a all along and animal beach bear big bird cat cats dog dogs fish garden grass grey here horse in is knows man nobody nothing on
park play polar pup red rides roof runs sea seen sings sits sleeps swims the two was what where who with word
"""


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT whose tokens are the words of `VOCABULARY`, with its tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    codes = {word: i for i, word in enumerate([*special, *VOCABULARY.split()])}
    tokenizer = Tokenizer(models.WordLevel(codes, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    ends = [("[CLS]", codes["[CLS]"]), ("[SEP]", codes["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    named = {f"{name.strip('[]').lower()}_token": name for name in special}
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    folder = tmp_path_factory.mktemp("bert")
    BertModel(BertConfig(vocab_size=len(codes), max_position_embeddings=256, **sizes)).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    return folder


class _Synset:
    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def lemmas(self) -> list[_Synset]:
        return [_Synset((name,)) for name in self._names]

    def name(self) -> str:
        return self._names[0]


class _WordNet:
    """As much of NLTK's reader as METEOR asks for."""

    def synsets(self, word: str) -> list[_Synset]:
        return [_Synset(names) for names in (("dog", "pup"), ("animal", "being")) if word in names]


def _answer(question: str) -> str:
    """How much of the words of two descriptions is in common, as a judge would say it."""
    first, second = (set(part.split("-----")[1].split()) for part in question.split(" description:")[1:])
    return str(round(4 * len(first & second) / max(len(first | second), 1)))


class _Clip:
    """Texts as which words they have, and a picture as what it would be said to depict."""

    def text(self, text: str) -> np.ndarray:
        held = np.array([float(word in text.lower().split()) for word in ["photo", *VOCABULARY.split()]])
        return held / np.linalg.norm(held)

    def picture(self, path: Path) -> np.ndarray:
        return self.text(f"A photo depicts {path}")


@pytest.fixture(scope="session")
def resources(bert_folder: Path) -> Mapping[str, Any]:
    """What metrics may need beside texts.

    A WordNet of two synsets, a random encoder, document frequencies of 100 stimuli, pictures that are names of what is seen, and
    a judge that counts words.
    """
    from bids_brainlm.evaluation.cider import Frequencies
    from bids_brainlm.evaluation.judge import Judge
    from bids_brainlm.evaluation.resources import load_encoder, load_states

    frequencies = Frequencies(100, Counter({("a",): 40, ("the",): 30, ("a", "dog"): 10}))
    found = {"bert": load_states(bert_folder), "encoder": load_encoder(bert_folder), "frequencies": frequencies}
    seen = ["a red bird sings on the roof", "the man rides a grey horse along the beach", "two dogs play in the park"]
    pictures = {f"s{i}": Path(text) for i, text in enumerate([*seen, "a grey cat sleeps", "a red fish swims in the sea"])}
    return {"wordnet": _WordNet(), "clip": _Clip(), "judge": Judge(_answer), "pictures": pictures, **found}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if "BRAINLM_TEST_DATA" in str(r.longrepr)]
    terminalreporter.write_line(f"{len(skipped)} test(s) skipped for want of the real data (BRAINLM_TEST_DATA)")
