"""Where the trainer runs: the GPUs that it sees, the environment that it inherits, the nodes of its Slurm job."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.root import ROOT
from scripts.train.exit_status import ending
from scripts.train.gpus import may_have_gpus
from scripts.train.meeting import own_addresses
from scripts.train.ports import free_port
from scripts.train.settings import OWNED_VARIABLES, StageSettings
from scripts.train.slurm_commands import answer, ask


def num_gpus(python: Path, environment: Mapping[str, str]) -> int:
    """How many GPUs a trainer with this environment sees. Where there may be one, torch is asked in its own process."""
    if not may_have_gpus(environment):
        return 0
    code = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
    result = subprocess.run([python, "-c", code], env=dict(environment), capture_output=True, text=True)
    if result.returncode < 0:
        raise UserError(
            f"{python}: importing torch was ended by {ending(result.returncode)}; see why, or ask for more memory"
        )
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(
            f"{python}: torch cannot be imported ({reason}); remove {python.parent.parent}.ok and build it again"
        )
    return int(result.stdout.split()[-1])


def inherited_environment(settings: StageSettings) -> dict[str, str]:
    """Ours and the stage's, without the variables by which ms-swift would take itself for a rank of another training."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in OWNED_VARIABLES and not name.startswith("TORCHELASTIC_")
    }
    return environment | {name: str(value) for name, value in settings.environment.items()}


def without_slurm_options(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of our own srun, which must not take options from the job step that we run in."""
    kept = ("SLURM_JOB_ID", "SLURM_CONF")
    return {k: v for k, v in environment.items() if k in kept or not k.startswith(("SLURM_", "SRUN_", "SBATCH_"))}


def num_cpus_per_task() -> int:
    """Of this Slurm job, asked of Slurm because Snakemake's plugin removes the variable that says so."""
    job_id = os.environ["SLURM_JOB_ID"]
    shown, reason = ask("scontrol", "--oneliner", "show", "job", job_id)
    number = re.search(r"\bCPUs/Task=(\d+)", shown or "")
    if number is None:
        reason = reason or "no CPUs/Task in its answer"
        raise UserError(
            f"scontrol show job {job_id}: failed ({reason}); expected this job; give the same command again"
        )
    return int(number.group(1))


def check_slurm_job(stage: str, num_nodes: int) -> None:
    """Raises UserError when several nodes are asked for outside a Slurm job."""
    if num_nodes > 1 and "SLURM_JOB_ID" not in os.environ:
        raise UserError(
            f"{stage}.num_nodes: {num_nodes} found, but this is no Slurm job; start it by one, or set num_nodes: 1"
        )


def node_launcher(python: Path, num_nodes: int, word: str) -> list[str]:
    """What starts torchrun on every node of this Slurm job, once the nodes have met; `word` is of this start alone."""
    if shutil.which("srun") is None:
        raise UserError(
            "srun: not found in this job; expected it, since it starts the other nodes' processes; ask the cluster's support, or "
            "train on one node (num_nodes: 1)"
        )
    tasks = [f"--nodes={num_nodes}", f"--ntasks={num_nodes}", "--ntasks-per-node=1"]
    cpus = f"--cpus-per-task={num_cpus_per_task()}"  # srun does not take over the job's own number
    meeting = [
        "--hosts",
        *names_of_this_node(),
        "--port",
        str(free_port()),
        "--num-nodes",
        str(num_nodes),
        "--word",
        word,
    ]
    srun = ["srun", "--overlap", *tasks, cpus, "--cpu-bind=none", "--kill-on-bad-exit=1"]
    return [*srun, str(python), str(ROOT / "scripts"), "train.enter_node", *meeting, "--"]


def names_of_this_node() -> list[str]:
    """Under which the other nodes may reach this one, numbers first: a name may mean something else there, or nothing."""
    host = socket.gethostname()
    shown = answer("scontrol", "--oneliner", "show", "node", host.partition(".")[0])
    node_address = re.search(r"\bNodeAddr=(\S+)", shown)
    names = [*own_addresses(), *([node_address.group(1)] if node_address else []), host, socket.getfqdn()]
    return list(dict.fromkeys(names))
