"""Settings and a training of a stage, as unit tests need them."""

from pathlib import Path
from typing import Any

from scripts.train.run import Run
from scripts.train.settings import StageSettings

FLAGS = {
    "freeze_vit": True,
    "freeze_llm": True,
    "freeze_aligner": False,
    "learning_rate": 0.1,
    "max_steps": 4,
    "save_steps": 5,
    "logging_steps": 1,
}


def stage_settings(*, flags: dict[str, Any] | None = None, **changes: Any) -> StageSettings:
    """A stage's section; `flags` are added to the usual ones."""
    section: dict[str, Any] = {
        "datasets": ["x"],
        "deepspeed": None,
        "environment": {"MAX_PIXELS": 1003520},
        "num_nodes": 1,
        "num_processes_per_node": 1,
    }
    return StageSettings(**{**section, **changes}, flags={**FLAGS, **(flags or {})})


def whole_model_settings(flags: dict[str, Any] | None = None, **changes: Any) -> StageSettings:
    """A stage in which everything trains, for as long as `flags` say."""
    everything = {"freeze_vit": False, "freeze_llm": False, "max_steps": None}
    return stage_settings(flags={**everything, **(flags or {})}, **changes)


def make_run(run_dir: Path, settings: StageSettings | None = None, **changes: Any) -> Run:
    """A training whose files lie in `run_dir`."""
    fields: dict[str, Any] = {
        "stage": "stage1",
        "settings": settings or stage_settings(),
        "seed": 7,
        "model_dir": Path("/models/graft"),
        "model_config": {},
        "dataset": Path("/data/stage1.jsonl"),
        "num_rows": 3,
        "run_dir": run_dir,
        "log": run_dir / "train.log",
        "python": Path("/env/python"),
    }
    return Run(**{**fields, **changes})
