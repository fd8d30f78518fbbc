"""Where stages write what, and the sidecars of their tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bids_brainlm.config import Request
from bids_brainlm.io.files import write_json


def beh_path(request: Request, participant: str, desc: str) -> Path:
    """``sub-01/beh/sub-01_desc-<desc>_beh.tsv``."""
    return request.out_dir / f"sub-{participant}" / "beh" / f"sub-{participant}_desc-{desc}_beh.tsv"


def reliability_path(request: Request, participant: str) -> Path:
    """``sub-01/func/sub-01_stat-reliability_desc-LSS_statmap.tsv``: split-half reliability, one row a vertex."""
    name = f"sub-{participant}_stat-reliability_desc-{request.config.estimate.estimator.upper()}_statmap.tsv"
    return request.out_dir / f"sub-{participant}" / "func" / name


def model_path(request: Request, participant: str, fold: int) -> Path:
    """``sub-01/model/sub-01_desc-fold0decoder_model.safetensors``."""
    return request.out_dir / f"sub-{participant}" / "model" / f"sub-{participant}_desc-fold{fold}decoder_model.safetensors"


def describe(table: Path, description: str, columns: Mapping[str, str]) -> Path:
    """Write the sidecar of a table: what it is, and what its columns mean."""
    tree = {"Description": description, **{name: {"Description": text} for name, text in columns.items()}}
    return write_json(table.with_suffix(".json"), tree)
