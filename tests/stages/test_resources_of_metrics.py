"""What metrics need beside texts is gathered when one of them asks for it, and not otherwise."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bids_brainlm.config import Request, load
from bids_brainlm.core.types import DECODED_COLUMNS
from bids_brainlm.errors import MissingResourceError
from bids_brainlm.evaluation.metrics import chosen
from bids_brainlm.evaluation.table import Predictions
from bids_brainlm.stages import evaluate


def asking(folder: Path, **settings: object) -> Request:
    return Request(folder, folder / "out", "participant", ("1",), {}, folder / "work", load(overrides=settings))


def predictions(stimulus: str) -> Predictions:
    row = {"trial_id": "t", "condition": "true", "text_pred": "a", "text_true": "a dog | the dog", "stimulus_id": stimulus}
    frame = pd.DataFrame([row]).reindex(columns=list(DECODED_COLUMNS)).astype(object).fillna("")
    return Predictions(frame.assign(nll=1.0, n_tokens=1, fold=0))


def test_what_is_asked_for_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stimuli").mkdir()
    (tmp_path / "stimuli" / "a.png").touch()
    monkeypatch.setattr(evaluate, "load_judge", lambda name, device: (name, device))
    metrics = chosen(["cider", "clipscore", "judge"])
    there = asking(tmp_path, **{"evaluate.judge": "org/model", "run.device": "cpu"})
    found = evaluate._resources(there, metrics, predictions("a.png"))
    assert set(found) == {"frequencies", "pictures", "judge"}
    assert found["frequencies"].counts["the", "dog"] == 1
    assert found["judge"] == ("org/model", "cpu")
    assert set(evaluate._resources(asking(tmp_path), metrics, predictions("b.png"))) == {"frequencies"}
    assert set(evaluate._resources(there, chosen(["wer"]), predictions("a.png"))) == {"frequencies"}


def test_a_judge_or_a_clip_that_is_not_here_is_said_beforehand(tmp_path: Path) -> None:
    for name in ("judge", "clip"):
        with pytest.raises(MissingResourceError, match=f"check --{name}"):
            evaluate.text_models(asking(tmp_path, **{f"evaluate.{name}": str(tmp_path)}))
    with pytest.raises(MissingResourceError):
        evaluate.text_models(asking(tmp_path, **{"evaluate.judge": "nobody/no-such-model"}))
