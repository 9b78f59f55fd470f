"""The profile takes a site's names as names, times and sizes as people write them, and refuses others by their variable."""

from pathlib import Path
from typing import Any

import pytest
import yte


@pytest.fixture
def profile(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The profile as Snakemake reads it, with these variables."""

    def read(**variables: str) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            return yte.process_yaml((root / "slurm/config.yaml").read_text(), require_use_yte=True)

    return read


@pytest.mark.parametrize("word", ["all", "open", "2024-12", "1e5", "None", "gpu,long", "a100&ib", "max", ""])
def test_names_stay_what_they_are_though_snakemake_evaluates_them(profile: Any, word: str) -> None:
    read = profile(
        SLURM_PARTITION_GPU=word, SLURM_ACCOUNT=word, SLURM_QOS=word, SLURM_CONSTRAINT=word, SLURM_GPU_TYPE=word
    )
    values = [read["set-resources"]["stage1"]["slurm_partition"]]
    values += [read["default-resources"][key] for key in ("slurm_account", "qos", "constraint", "slurm_gpu_type")]
    assert [eval(value) for value in values] == [word] * 5  # as Snakemake does


def test_without_variables_nothing_of_a_site_is_asked_for(profile: Any) -> None:
    read = profile()
    assert not {"slurm_account", "qos", "constraint"} & read["default-resources"].keys()
    assert eval(read["default-resources"]["slurm_extra"]) == ""
    assert eval(read["set-resources"]["stage1"]["slurm_extra"]) == "--signal=TERM@600 --open-mode=append"


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90), ("24h", 1440), ("2d", 2880), ("24:00:00", 1440), ("1-12:00:00", 2160), ("00:30:01", 31), ("45 min", 45),
        ("2 hours", 120),
    ],
)  # fmt: skip
def test_times_are_taken_as_people_write_them(profile: Any, text: str, minutes: int) -> None:
    assert profile(SLURM_RUNTIME_TRAIN=text)["set-resources"]["stage2"]["runtime"] == minutes


@pytest.mark.parametrize(
    ("text", "mem_mb"), [("480000", 480000), ("480G", 491520), ("1T", 1048576), ("2048K", 2), ("64GB", 65536), ("0", 0)]
)
def test_sizes_are_taken_as_slurm_counts_them(profile: Any, text: str, mem_mb: int) -> None:
    assert profile(SLURM_MEM_MB_TRAIN=text)["set-resources"]["stage1"]["mem_mb"] == mem_mb


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SLURM_RUNTIME_TRAIN", "a day"), ("SLURM_RUNTIME_EVALUATE", "24:61:00"), ("SLURM_MEM_MB_TRAIN", "lots"),
        ("SLURM_MEM_MB_FIDELITY", "-1"), ("SLURM_CPUS_TRAIN", "8.0"), ("SLURM_POLL_S", "30s"), ("SLURM_PARTITION_GPU", "a b"),
        ("SLURM_PARTITION_CPU", "$(touch x)"), ("SLURM_ACCOUNT", "it's"), ("SLURM_EXTRA", "--comment=$(touch x)"),
        ("SLURM_SIGNAL_S", "x"),
    ],
)  # fmt: skip
def test_other_values_are_refused_by_their_variable(profile: Any, variable: str, value: str) -> None:
    with pytest.raises(SystemExit, match=rf"error: {variable}: .*expected"):
        profile(**{variable: value})


def test_more_options_reach_every_job_and_those_of_gpus_only_jobs_that_have_some(profile: Any) -> None:
    read = profile(SLURM_EXTRA="--reservation=course", SLURM_EXTRA_GPU="--mem-per-gpu=60G --exclusive")
    assert eval(read["default-resources"]["slurm_extra"]) == "--reservation=course"
    assert (
        eval(read["set-resources"]["evaluate"]["slurm_extra"]) == "--reservation=course --mem-per-gpu=60G --exclusive"
    )
    assert eval(read["set-resources"]["stage1"]["slurm_extra"]).endswith(
        "--open-mode=append --reservation=course --mem-per-gpu=60G --exclusive"
    )
