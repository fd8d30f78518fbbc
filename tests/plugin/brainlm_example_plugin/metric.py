"""A metric as a plain function: the share of the text's words that stand in its best reference."""

from __future__ import annotations

from collections.abc import Sequence


def word_overlap(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """One value in [0, 1] per text."""
    return [
        max(_overlap(text.lower().split(), item.lower().split()) for item in items)
        for text, items in zip(hypotheses, references, strict=True)
    ]


def _overlap(text: list[str], reference: list[str]) -> float:
    return len(set(text) & set(reference)) / max(len(set(text)), 1)
