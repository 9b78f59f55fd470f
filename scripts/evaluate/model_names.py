"""The models of a score table by name, in the order in which they are shown."""

from collections.abc import Iterable
from pathlib import Path

from scripts.common.errors import UserError

# The suffix of a control behind the model's name, and what it does to the pictures.
CONTROLS = {"shuffled": "with the pictures shuffled among the questions", "blind": "asked without pictures"}
NO_CONTROL = "none"

# In the order in which the pipeline makes them; any other name comes after them.
PIPELINE_MODELS = ("parent", "graft", "stage1", "stage2")


def control_of(model: str) -> str:
    """`shuffled` or `blind` for a row that is a control, else `none`."""
    return next((control for control in CONTROLS if model.endswith(f"-{control}")), NO_CONTROL)


def base_of(model: str) -> str:
    """The model that is asked for a row: the name without a control's suffix."""
    return model.removesuffix(f"-{control_of(model)}")


def is_control(model: str) -> bool:
    """Whether a row was asked with other pictures than those of the questions, or with none."""
    return control_of(model) != NO_CONTROL


def pipeline_order(model: str) -> tuple[bool, int, str]:
    """Sort key: the models in the order in which the pipeline makes them, controls after all of them."""
    base = base_of(model)
    place = PIPELINE_MODELS.index(base) if base in PIPELINE_MODELS else len(PIPELINE_MODELS)
    return is_control(model), place, model


def paths_by_model(paths: Iterable[Path], option: str) -> dict[str, Path]:
    """Files named by their models, in the order of the pipeline. Raises UserError where two are of one model."""
    by_model: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: pipeline_order(path.stem)):
        if (other := by_model.setdefault(path.stem, path)) is not path:
            raise UserError(f"{option}: {other} and {path} are both of {path.stem}; expected one a model; remove one")
    return by_model
