"""How the trainer is placed: on which GPUs, and on which nodes of a Slurm job."""

import os
import socket
from pathlib import Path

import pytest

from helpers.stage import stage_settings
from scripts.common.errors import UserError
from scripts.train import gpus, launch
from scripts.train.launch import (
    check_slurm_job,
    inherited_environment,
    names_of_this_node,
    node_launcher,
    num_gpus,
    without_slurm_options,
)


def test_several_nodes_need_a_slurm_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    check_slurm_job("stage1", 1)
    with pytest.raises(UserError, match=r"stage1\.num_nodes: 2 found, but this is no Slurm job"):
        check_slurm_job("stage1", 2)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    check_slurm_job("stage1", 2)


def test_nodes_are_started_with_the_jobs_own_number_of_processors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    scontrol = tmp_path / "scontrol"  # instead of Slurm's
    scontrol.write_text("#!/bin/sh\necho JobId=7 NumCPUs=48 NumTasks=2 CPUs/Task=24 ReqB:S:C:T=0:0:*:*\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="srun: not found in this job"):
        node_launcher(Path("python"), 2, "this-start")
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    launcher = node_launcher(Path("python"), 2, "this-start")
    assert launcher[:3] == ["srun", "--overlap", "--nodes=2"]
    assert "--cpus-per-task=24" in launcher
    scontrol.write_text("#!/bin/sh\necho Unable to contact >&2; exit 1\n")
    with pytest.raises(UserError, match=r"scontrol show job 7: failed \(Unable to contact\)"):
        node_launcher(Path("python"), 2, "this-start")


def test_nodes_look_for_the_first_one_under_its_addresses_before_its_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scontrol = tmp_path / "scontrol"  # instead of Slurm's
    scontrol.write_text("#!/bin/sh\necho NodeName=node1 Arch=x NodeAddr=node1-ib NodeHostName=node1 Version=22.05.8\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(launch, "own_addresses", lambda: ["10.0.0.1", "127.0.0.1"])
    names = names_of_this_node()
    assert names[:3] == ["10.0.0.1", "127.0.0.1", "node1-ib"]
    assert socket.gethostname() in names
    scontrol.write_text("#!/bin/sh\nexit 1\n")
    assert "node1-ib" not in names_of_this_node()


def test_a_machine_without_a_gpus_device_file_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "GPU_DEVICE_NODES", ("/dev/there-is-no-such-device",))
    assert num_gpus(Path("python"), {}) == 0


def test_a_trainer_does_not_inherit_another_trainings_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "NPROC_PER_NODE",
    }  # fmt: skip
    for name in names:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    environment = inherited_environment(stage_settings(environment={"MAX_PIXELS": 5}))
    assert environment["MAX_PIXELS"] == "5"
    assert (environment["HOME"], environment["OMP_NUM_THREADS"]) == ("/home/somebody", "5")
    assert environment.keys().isdisjoint(names)


def test_our_own_srun_gets_the_job_and_none_of_its_steps_options() -> None:
    environment = {
        "SLURM_JOB_ID": "7",
        "SLURM_CONF": "/etc/slurm",
        "SLURM_NTASKS": "3",
        "SLURM_CPU_BIND": "cores",
        "SBATCH_PARTITION": "cpu",
        "SRUN_DEBUG": "1",
        "PATH": "/bin",
    }
    assert without_slurm_options(environment) == {"SLURM_JOB_ID": "7", "SLURM_CONF": "/etc/slurm", "PATH": "/bin"}


def test_a_trainer_inherits_the_keys_and_tokens_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may not stand in the configuration."""
    for name in ("WANDB_API_KEY", "HF_TOKEN", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"the shell's {name}")
    inherited = inherited_environment(stage_settings())
    assert {name: inherited[name] for name in ("WANDB_API_KEY", "HF_TOKEN", "HTTPS_PROXY")} == {
        name: f"the shell's {name}" for name in ("WANDB_API_KEY", "HF_TOKEN", "HTTPS_PROXY")
    }
    assert without_slurm_options(inherited)["WANDB_API_KEY"] == "the shell's WANDB_API_KEY"
