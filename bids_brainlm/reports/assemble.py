"""The report of a participant from whatever files are there: ``sub-XX.html``, figures and method text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bids_brainlm import __version__
from bids_brainlm.config import Outcome, Request, to_toml
from bids_brainlm.errors import BrainLMError
from bids_brainlm.evaluation.table import Predictions, primary_of
from bids_brainlm.io.files import atomic_write, read_json, read_tsv, write_text
from bids_brainlm.io.maps import read_maps
from bids_brainlm.reports import panels
from bids_brainlm.reports.abstain import coverage_panel, zero_shot_panel
from bids_brainlm.reports.doubts import doubts_of, notes_of
from bids_brainlm.reports.estimation import estimation_panels, words
from bids_brainlm.reports.facts import estimates_of, estimation_of, facts_of, geometry_of, n_permutations, trials_of
from bids_brainlm.reports.heard import read_runs
from bids_brainlm.reports.methods import MethodFacts, bibliography, method_text
from bids_brainlm.reports.page import PageContent, participant_page
from bids_brainlm.reports.panels import Panel
from bids_brainlm.reports.sheets import Sheet, controls_sheet, effects_sheet, questions_sheet
from bids_brainlm.reports.stories import read_stories
from bids_brainlm.reports.tables import as_numbers, dataset_name, metrics_sidecar, read_table
from bids_brainlm.reports.turning import Turning, turning
from bids_brainlm.reports.where import CONTRIBUTION, where_panels
from bids_brainlm.stages.outputs import MARKS, find_beh, find_models, find_reliability, find_where
from bids_brainlm.stages.responses import atlas_of

TABLES = ("decoded", "metrics", "training")

SINGLE = ("evidence", "coverage", "effects", "controls", "questions")
"""Tables of figures alone, but for names in columns of text."""


def write_participant(request: Request, participant: str, outcome: Outcome) -> Path:
    """Write a participant's report from the outputs that are there.

    Parameters
    ----------
    request : Request
    participant : str
        Label.
    outcome : Outcome
        Its errors become the first lines.
    """
    tables = {desc: read_table(find_beh(request, participant, desc)) for desc in TABLES}
    summary = None if tables["metrics"] is None else as_numbers(tables["metrics"])
    sidecars = [read_json(path) for path in find_models(request, participant)]
    facts = facts_of(request, participant, tables, sidecars)
    estimates, trials = estimates_of(request, participant), trials_of(request, participant)
    estimation = estimation_of(request, participant, estimates)
    groups = _panels(request, participant, tables)
    single = {desc: _single(request, participant, desc) for desc in SINGLE}
    groups["abstain"] = _abstain(single["coverage"], summary)
    marks = metrics_sidecar(request, participant) | {key: True for key in MARKS if any(item.get(key) for item in sidecars)}
    stories = read_stories(request, participant)
    groups["stories"] = () if stories is None or stories.figure is None else (stories.figure,)
    groups["estimation"] = () if estimation is None else estimation_panels(estimation, *panels.place_of(estimation.geometry))
    for panel in (panel for part in groups.values() for panel in part):
        _write_panel(request.out_dir, f"sub-{participant}", panel)
    decoded = find_beh(request, participant, "decoded")
    page = PageContent(
        title=f"sub-{participant}",
        dataset=dataset_name(request.bids_dir),
        version=__version__,
        doubts=doubts_of(summary, tables["decoded"], marks),
        errors=outcome.errors,
        warnings=notes_of(estimates, trials, sidecars, marks, summary),
        overview=_overview(request, facts, sidecars),
        metrics=groups["metrics"],
        stories=stories,
        methods=method_text(facts),
        settings=to_toml(request.config),
        provenance=_provenance(request, sidecars),
        test=None if summary is None else primary_of(summary, n_permutations(request, participant)),
        predictions=None if tables["decoded"] is None else Predictions(tables["decoded"]),
        evidence=single["evidence"],
        runs=read_runs(request, participant),
        decoded_file="" if decoded is None else str(decoded.relative_to(request.out_dir)),
        summary=summary,
        sheets=tuple(filter(None, _sheets(single))),
        abstain=groups["abstain"],
        estimation_text=() if estimation is None else words(estimation),
        estimation=groups["estimation"],
        quality=groups["quality"],
        where=groups["where"],
        turning=_turning(request, participant),
        parcels=groups["parcels"],
        training=groups["training"],
    )
    _write_method_text(request, participant, facts)
    return write_text(request.out_dir / f"sub-{participant}.html", participant_page(page))


def write_boilerplate(request: Request, participant: str) -> Path:
    """Write the method text of a participant and its references, from the settings and whatever outputs are there."""
    tables = {desc: read_table(find_beh(request, participant, desc)) for desc in TABLES}
    sidecars = [read_json(path) for path in find_models(request, participant)]
    return _write_method_text(request, participant, facts_of(request, participant, tables, sidecars))


def _write_method_text(request: Request, participant: str, facts: MethodFacts) -> Path:
    write_text(request.out_dir / "logs" / "CITATION.bib", bibliography(facts))
    return write_text(request.out_dir / "logs" / f"sub-{participant}_CITATION.md", method_text(facts))


def _panels(request: Request, participant: str, tables: dict[str, Any]) -> dict[str, tuple[Panel, ...]]:
    out: dict[str, tuple[Panel, ...]] = {"metrics": (), "where": (), "quality": (), "parcels": (), "training": ()}
    if tables["training"] is not None:
        out["training"] = (panels.training(as_numbers(tables["training"], texts=("phase",))),)
    if tables["metrics"] is not None:
        out["metrics"] = (panels.metrics(as_numbers(tables["metrics"])), *_surprise(request, participant, tables["metrics"]))
    geometry = geometry_of(request, participant)
    maps = find_reliability(request, participant)
    if maps is not None:
        out["quality"] = _quality(maps)
    out["where"] = _where(request, participant)
    if geometry is not None:
        try:
            told = request.config.model.tokenizer == "parcelwise"
            out["parcels"] = panels.parcels(atlas_of(request, geometry), panels.place_of(geometry)[1], told)
        except BrainLMError:
            # The outcome, which is the first line of the page, already says what is wrong with the atlas.
            out["parcels"] = ()
    return out


def _where(request: Request, participant: str) -> tuple[Panel, ...]:
    """Where in the brain, where that was asked for."""
    table, path = read_table(find_beh(request, participant, "where")), find_where(request, participant)
    if table is None or path is None:
        return ()
    maps, geometry = read_maps(path)
    return where_panels(as_numbers(table, texts=("region", "kind", "way")), maps, *panels.place_of(geometry))


def _surprise(request: Request, participant: str, metrics: pd.DataFrame) -> tuple[Panel, ...]:
    """Figures of merit by surprise, where there are any."""
    path = find_beh(request, participant, "surprise")
    if path is None:
        return ()
    table = read_tsv(path)
    numbers = as_numbers(table, texts=("measure",))
    trained = bool(read_json(path.with_suffix(".json")).get("LanguageModelTrained"))
    return (panels.surprise(numbers, as_numbers(metrics), trained),)


def _quality(path: Path) -> tuple[Panel, ...]:
    """Reliability and noise ceiling, where the maps themselves say what they lie on."""
    maps, geometry = read_maps(path)
    place = panels.place_of(geometry)
    ways = {"reliability": panels.reliability, "noise_ceiling": panels.noise_ceiling}
    # Of stories that were heard once nothing is known: their maps have no values, and figures of them would be empty.
    known = {name: make for name, make in ways.items() if np.isfinite(maps[name]).any()}
    return tuple(panel for name, make in known.items() for panel in make(maps[name], *place))


def _write_panel(out_dir: Path, who: str, panel: Panel) -> None:
    path = out_dir / who / "figures" / f"{who}_desc-{panel.name}{panel.extension}"
    with atomic_write(path) as partial:
        partial.write_bytes(panel.image)


def _overview(request: Request, facts: MethodFacts, sidecars: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    waste = sidecars[0]["PaddingWaste"] if sidecars else None
    where = f"{facts.space} {facts.density}".strip()
    parts = f"{facts.n_train} training, {facts.n_validation} validation, {facts.n_texts_test} test"
    told, kind = facts.windows, facts.estimator.upper() or "Cleaned series"
    rows = [
        ("Stories", f"{told.n_stories} with {told.n_words:,} words in {facts.n_runs} runs" if told else ""),
        ("Windows", f"{told.n_windows:,} of {told.seconds:g} s, {told.left_out}" if told else ""),
        ("Trials", f"{facts.n_trials} of {facts.n_stimuli} stimuli in {facts.n_runs} runs" if facts.n_trials else ""),
        ("Responses", f"{kind} in {where}, {facts.n_vertices:,} vertices" if facts.n_vertices else ""),
        ("Brought to the surface from", "; ".join(facts.projections)),
        ("Unusable vertices", f"{facts.n_masked:,} (masked)" if facts.n_vertices else ""),
        ("Parcels", f"{facts.n_parcels} of {facts.atlas}" if facts.n_parcels else ""),
        ("Padding of the parcel product", "" if waste is None else f"{waste:.0%}"),
        ("Language model", f"{facts.llm} {facts.revision[:19]}"),
        ("Split", f"{facts.scheme} by {facts.group}; {parts}" if sidecars else ""),
        ("Seed", str(request.config.run.random_seed)),
    ]
    return tuple((name, text) for name, text in rows if text.strip())


def _single(request: Request, participant: str, desc: str) -> pd.DataFrame | None:
    """A table whose columns of numbers are numbers, if it is there."""
    table = read_table(find_beh(request, participant, desc))
    if table is None:
        return None
    numbers = {name: pd.to_numeric(table[name], errors="coerce") for name in table}
    return table.assign(**{name: column for name, column in numbers.items() if column.notna().any() or table[name].isna().all()})


def _sheets(single: Mapping[str, pd.DataFrame | None]) -> tuple[Sheet | None, ...]:
    return questions_sheet(single["questions"]), effects_sheet(single["effects"]), controls_sheet(single["controls"])


def _abstain(coverage: pd.DataFrame | None, summary: pd.DataFrame | None) -> tuple[Panel, ...]:
    """Which texts may be trusted: risk and coverage, and categories that were left out of training."""
    curve = None if coverage is None else coverage_panel(coverage)
    unseen = None if summary is None else zero_shot_panel(summary)
    return tuple(panel for panel in (curve, unseen) if panel is not None)


def _turning(request: Request, participant: str) -> Turning | None:
    """Maps of quality, and of contributions, on a brain that turns, where they lie on fsaverage."""
    path = find_reliability(request, participant)
    if path is None:
        return None
    maps, geometry = read_maps(path)
    labels = {"reliability": panels.RELIABILITY, "noise_ceiling": panels.CEILING}
    shown = {label: maps[name] for name, label in labels.items()}
    where = find_where(request, participant)
    if where is not None:
        shown[CONTRIBUTION] = read_maps(where)[0]["contribution"]
    return turning(shown, panels.place_of(geometry)[0])


def _provenance(request: Request, sidecars: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    """What the decoder was made with and from, as its sidecar says."""
    if not sidecars:
        return ()
    path, model = request.bids_dir / "dataset_description.json", sidecars[0]["LanguageModel"]
    told = read_json(path) if path.is_file() else {}
    rows = [
        ("Dataset", f"{dataset_name(request.bids_dir)} (BIDS {told.get('BIDSVersion', 'version not known')})"),
        ("DOI of the dataset", str(told.get("DatasetDOI", ""))),
        ("Language model", f"{Path(model['name']).name}, {model['revision']}"),
        ("Decoders", "one" if len(sidecars) == 1 else f"{len(sidecars)}, one a fold"),
        ("Made with", ", ".join(f"{name} {version}" for name, version in sidecars[0]["SoftwareVersions"].items())),
        ("Citation", "logs/CITATION.bib"),
    ]
    return tuple((name, text) for name, text in rows if text)
