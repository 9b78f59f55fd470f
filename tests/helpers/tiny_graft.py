"""A graft of tiny donors made in this process, by the functions of the programs."""

from pathlib import Path
from typing import Any

from scripts.common.files import write_json_atomically
from scripts.common.settings import settings_from
from scripts.donors.safetensors_files import read_checkpoint
from scripts.graft.derive_config import derive_from_donors
from scripts.graft.graft import GraftJob, graft
from scripts.graft.settings import GraftSettings

SECTION = {"architecture": "qwen3", "aligner": "fresh", "calibration": "none", "max_shard_gb": 4, "link": "auto"}


def graft_settings(**changes: Any) -> GraftSettings:
    """The section `graft` of the demo, with some keys changed."""
    return settings_from(GraftSettings, {**SECTION, **changes}, "graft")


def graft_job(root: Path, donors: tuple[Path, Path], output_dir: Path, seed: int = 0, **changes: Any) -> GraftJob:
    """The job, with config.json derived and with the donors' manifests where there are any."""
    settings = graft_settings(**changes)
    write_json_atomically(output_dir / "config.json", derive_from_donors(*donors, settings))
    vl_manifest, llm_manifest = (path if (path := dir_.with_suffix(".json")).exists() else None for dir_ in donors)
    return GraftJob(
        vl_dir=donors[0],
        llm_dir=donors[1],
        config_path=output_dir / "config.json",
        settings=settings,
        seed=seed,
        code_dir=root / "model/qwen2_5_vl_qwen3",
        output_dir=output_dir,
        vl_manifest_path=vl_manifest,
        llm_manifest_path=llm_manifest,
    )


def run_graft(root: Path, donors: tuple[Path, Path], output_dir: Path, seed: int = 0, **changes: Any) -> Path:
    """Makes the graft and returns its directory."""
    graft(graft_job(root, donors, output_dir, seed, **changes))
    return output_dir


def read_bytes(directory: Path) -> dict[str, bytes]:
    """{name: bytes} of a checkpoint."""
    blobs = {}
    for name, tensor in read_checkpoint(directory).items():
        with open(tensor.path, "rb") as file:
            file.seek(tensor.offset)
            blobs[name] = file.read(tensor.num_bytes)
    return blobs
