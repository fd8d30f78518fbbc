"""What was made of words with times, from the files of stage clean."""

from __future__ import annotations

from bids_brainlm.config import Request
from bids_brainlm.reports.methods import WindowFacts
from bids_brainlm.stages.responses import heard_in
from bids_brainlm.stages.runs import over_time
from bids_brainlm.stages.windows import left_out_of


def read_windows(request: Request, participant: str) -> WindowFacts | None:
    """Stories, words and windows of a participant; None where words have no times, or no series was cleaned."""
    trials = heard_in(request, participant) if over_time(request) else None
    if trials is None or trials.heard is None:
        return None
    settings, counts = request.config.window, left_out_of(trials, request.config.window)
    left = {"silent": counts.silent, "outside": counts.outside, "early": counts.early}
    told = (trials.heard["story"].nunique(), len(trials.heard), counts.used)
    return WindowFacts(*told, settings.seconds, settings.lag, settings.rows, settings.context, **left)
