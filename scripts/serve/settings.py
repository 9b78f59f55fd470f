"""What has to be there before a checkpoint is served to a person."""

from pathlib import Path

from scripts.common.errors import UserError


def require_servable(checkpoint_dir: Path, python: Path) -> None:
    """Raises UserError when there is no checkpoint, or when the environment that serves it is not built."""
    if not (checkpoint_dir / "config.json").exists():
        raise UserError(
            f"{checkpoint_dir}/config.json: not found; expected a checkpoint in the hub's format, for example "
            "results/stage2/checkpoint; check the path"
        )
    if not python.exists():
        raise UserError(
            f"{python}: not found; expected the environment that serves; build it: "
            f"snakemake --cores all {python.parent.parent}.ok"
        )
