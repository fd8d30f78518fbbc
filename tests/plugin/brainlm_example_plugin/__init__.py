"""A plug-in of bids_brainlm as small as it can be: one brain tokenizer and one metric."""
