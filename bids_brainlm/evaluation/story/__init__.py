"""Whole stories from brains: a decoder goes on from its own text, window after window.

- A *telling* is a story as it was heard in a run; a *stretch* is successive windows of it that were held out (`tellings`).
- How many words a window has is told by a *word-rate model* (`rate`); what they are, by a beam search over tokens (`search`) with
  a language model that reads on from a cache (`reading`).
- Two *story decoders* are built in (`decoders`): ``generate`` puts brain tokens before the text so far (Ye et al. 2025),
  ``encoding`` weighs proposals of the language model by how well they explain the brain (`encoding`; Tang et al. 2023).
- Texts are *compared* in longer windows with what was said, with texts by the language model alone, and with what was said at
  other times of the story (`comparison`).
"""
