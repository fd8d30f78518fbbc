"""Experiments on a trained decoder: ask a response, stimulate it, name its parcels.

What is found here are effects on the *model*. They say what the decoder has learned to read from a place, and nothing about
what the brain does with it.

- A *participant* is what an output folder holds of one: responses, examples, folds and their decoders
  (`bids_brainlm.insilico.participant.open_participant`).
- A *pattern* is a map (V,) in standard deviations: added to a response, it drives its vertices. A *site* is a pattern with a
  name; a *dose* is the factor it is multiplied by.
"""
