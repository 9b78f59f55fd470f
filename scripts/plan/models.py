"""The grafted model of a configuration, by its donors' config.json: their own, or before they are fetched the published ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.root import ROOT
from scripts.graft.donor_configs import (
    CONFIG_NAME,
    VISION_DEFAULTS,
    language_shape,
    read_language_donor,
    read_vision_donor,
    tied,
    vision_shape,
)
from scripts.plan.stacks import Model, language_stack, vision_parts
from scripts.train.settings import DTYPES

PUBLISHED_DIR = ROOT / "config/models"


@dataclass(frozen=True)
class PlannedModel:
    """The model, its weights' type, and where its numbers are from."""

    model: Model
    dtype: str
    origins: list[str]


def config_dir(role: str, donor: Mapping[str, Any], directory: Path) -> tuple[Path, str]:
    """The directory of a donor's config.json, and what to say of it. Raises UserError where there is none to reckon with."""
    if (directory / CONFIG_NAME).exists():
        return directory, f"{directory / CONFIG_NAME}"
    name = Path(str(donor.get("id", ""))).name
    if name and (PUBLISHED_DIR / name / CONFIG_NAME).exists():
        return PUBLISHED_DIR / name, f"config/models/{name}, as published (not fetched yet)"
    raise UserError(
        f"donors.{role}: {directory / CONFIG_NAME} not found; expected the donor, or one of config/models; fetch it: "
        "`snakemake prefetch`"
    )


def planned_model(donors: Mapping[str, Mapping[str, Any]], dirs: Mapping[str, Path]) -> PlannedModel:
    vl_dir, vl_origin = config_dir("vl", donors["vl"], dirs["vl"])
    llm_dir, llm_origin = config_dir("llm", donors["llm"], dirs["llm"])
    vl, llm = read_vision_donor(vl_dir), read_language_donor(llm_dir)
    vision = vl.child("vision_config")
    full = vision.get("fullatt_block_indexes", VISION_DEFAULTS["fullatt_block_indexes"])
    window_px = vision.integer("window_size", VISION_DEFAULTS["window_size"])
    shape = vision_shape(vision)
    language = language_stack(language_shape(llm, tied(llm)))
    # The aligner ends in the language model's width, whatever the vision donor's was.
    tower, aligner = vision_parts(
        shape, out_hidden_size=language.hidden_size, num_full_layers=len(full), window_px=window_px
    )
    dtype = llm.values.get("dtype") or llm.values.get("torch_dtype") or "bfloat16"
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UserError(
            f"{llm_dir / CONFIG_NAME}: dtype is {dtype!r}; expected one of {', '.join(DTYPES)}; take the donor's original"
        )
    return PlannedModel(Model(language, tower, aligner), dtype, [vl_origin, llm_origin])
