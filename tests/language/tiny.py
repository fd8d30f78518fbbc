"""Tokenizers of a few hundred tokens, trained on the spot, of every kind that prompts must be laid out for.

Loaded by path (see ``tests/models/conftest.py``) where another folder's tests need them.
"""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "A red bird sits on a wooden fence in the park.",
    "Two dogs run along the beach while the sun sets.",
    "Describe the following image. What colour is the animal in the picture?",
    "user assistant system model You are a helpful assistant.",
]

# Written for these tests, after the kind of template each name stands for.
SYSTEM_AND_TURNS = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}"
    "{{ '<think>\\n\\n</think>\\n\\n' + m.content.split('</think>')[-1].lstrip('\\n') }}{% else %}{{ m.content }}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TRIMMING = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + m.content | trim"
    " + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
DATED = (
    "{{ bos_token }}{{ '<|im_start|>system\\nToday Date: ' + strftime_now('%d %b %Y') + '<|im_end|>' }}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n\\n' + m.content | trim + '<|im_end|>' }}{% endfor %}"
)
BARE = (
    "{{ bos_token }}{% for m in messages %}{{ ' [INST] ' if m.role == 'user' }}{{ m.content }}"
    "{{ ' [/INST] ' if m.role == 'user' }}{% endfor %}"
)

TEMPLATES = {"chatml": SYSTEM_AND_TURNS, "thinking": THINKING, "gemma": TRIMMING, "dated": DATED, "bare": BARE}
END_OF_TURN = {"chatml": "<|im_end|>", "thinking": "<|im_end|>", "gemma": "<end_of_turn>", "dated": "<|im_end|>", "bare": "</s>"}
SPECIAL = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|endoftext|>"]


def tokenizer(chat: str | None = None, bos: bool = True, kind: str = "bytes") -> Any:
    """A tokenizer of Hugging Face's common class.

    Parameters
    ----------
    chat : name among TEMPLATES or None
    bos : bool
        Whether there is a beginning-of-text token.
    kind : {"bytes", "spaces"}
        Byte-level BPE, or one that puts a space before the start of every text, as SentencePiece does.
    """
    backend = Tokenizer(models.BPE())
    if kind == "bytes":
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        alphabet = [chr(i) for i in range(32, 127)] + ["\n", "▁"]
    trainer = trainers.BpeTrainer(vocab_size=380, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    out = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>" if bos else None,
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=SPECIAL[3:],
    )
    # As in real vocabularies, not every control token is marked special.
    out.add_tokens(["<think>", "</think>", "\n\n"])
    out.chat_template = TEMPLATES[chat] if chat else None
    return out
