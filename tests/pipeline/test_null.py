"""The primary test finds what is there, and says in words when nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bids_brainlm.cli import companion

# One run is held out, and the whole language model moves: in seconds it learns to read brains, if there is anything to read.
LEARNING = (
    *("--group", "run", "--facts", "stimuli/facts.tsv", "--set", "split.test=0.34", "split.validation=0.0"),
    *("phases.0.train=['tokenizer', 'all']", "phases.0.epochs=30", "phases.0.l2=0.1", "decode.permutations=99"),
    *("phases.0.learning_rate=0.01", "model.vertex_dropout=0.2"),
)


def _first_line(study: Any, who: str = "01") -> str:
    page = (study.out / f"sub-{who}.html").read_text("utf-8")
    return page.partition('role="status"><p>')[2].partition("</p>")[0]


def test_brains_that_saw_the_pictures(volume: Any, tmp_path: Path) -> None:
    study = volume.copy(tmp_path)
    study.ok("--participant-label", "01", *LEARNING)
    metrics = study.table("metrics")
    assert metrics["p_value"][0] == 0.01
    assert metrics["value"][0] > 0.3
    facts = metrics[metrics["metric"] == "facts"].set_index("condition")["value"]
    assert facts["true"] > max(facts["permuted"], facts["none"]) + 0.1
    assert _first_line(study).startswith("The text depends on the brain: given it, the right texts are")


def test_brains_that_saw_other_pictures(relabelled: Any) -> None:
    study = relabelled
    study.ok(*LEARNING)
    for who in ("01", "02"):
        assert study.table("metrics", who)["p_value"][0] > 0.05
        assert _first_line(study, who).startswith("No evidence that the text came from the brain")
    study.ok(*LEARNING, level="group")
    page = (study.out / "group.html").read_text("utf-8")
    assert "No evidence that the text came from the brain in any of 2 participants" in page


@pytest.mark.slow
def test_a_simulation_without_signal(llm: Path, surface: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--participants=1", "--runs=3", "--trials=40", "--repeats=2", "--space=T1w", "--snr=0"]
    assert companion.main(["simulate", str(tmp_path / "bids"), *sizes]) == 0
    study = type(surface)(tmp_path, surface.settings)
    atlas = "derivatives/simulation/atlas/space-T1w_atlas-cubes_dseg.nii.gz"
    study.ok(
        *("--space", "T1w", "--atlas", tmp_path / "bids" / atlas, "--split", "column", "--task-id", "pictures"),
        *("--set", "split.source=split", "phases.0.epochs=3", "decode.permutations=39"),
    )
    assert _first_line(study).startswith("No evidence that the text came from the brain")
