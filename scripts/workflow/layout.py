"""Where everything of a run lies, and the small file that represents each large output. Rules and programs share it.

Paths of a run (results, work, resources, logs) are relative to the working directory. Paths of this repository are so,
too, where it is the working directory, and absolute where the workflow is used from another one.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from scripts.common.root import ROOT
from scripts.common.settings import settings_from
from scripts.environments.settings import EnvironmentSettings, serving_role
from scripts.questions.catalogue import FETCHED_DIR, OWN_SUFFIXES, ListedBenchmark, listed_benchmarks

STAGES = ("stage1", "stage2")
DIGITS_DIR = "resources/data/digits"
DONORS_DIR = "resources/donors"

# Of a donor: with what stands around it, it fits into the 255 bytes of a file's name.
_MAX_NAME_LENGTH = 120


def shipped(path: str) -> str:
    """A path of this repository, as the working directory sees it."""
    return path if Path.cwd() == ROOT else str(ROOT / path)


def text_path(path: str) -> str:
    """A text that the configuration names: in the working directory, or else one that comes with this repository."""
    return path if Path(path).exists() or not (ROOT / path).exists() else shipped(path)


def file_name(text: str) -> str:
    """A name of ours made from one of the user's: the same where any shell, Snakemake and file system take it as it is.

    Otherwise what is left of it, and a part of its sha256, so that two of them stay two.
    """
    safe = re.sub(r"[^\w.-]", "_", text, flags=re.ASCII)[:_MAX_NAME_LENGTH]
    return text if safe == text else f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def before(stage: str) -> str:
    """The model that a stage starts from."""
    return "graft" if stage == "stage1" else "stage1"


def stages_up_to(stage: str) -> tuple[str, ...]:
    """The stages that led to a checkpoint, in order."""
    return STAGES[: STAGES.index(stage) + 1]


@dataclass(frozen=True)
class Layout:
    """The paths of the run that a valid configuration describes."""

    config: Mapping[str, Any]

    @property
    def results(self) -> str:
        return str(self.config["results"]).rstrip("/")

    @property
    def work(self) -> str:
        """Undeclared files: training checkpoints, server logs, answers. A killed step goes on from there."""
        return f"work/{self.results}"

    def result(self, path: str) -> str:
        """A target of this run."""
        return f"{self.results}/{path}"

    def log(self, name: str) -> str:
        return f"logs/{self.results}/{name}.log"

    # Environments

    @property
    def serve_role(self) -> str:
        """The role whose environment serves models."""
        return serving_role(self.config["evaluate"]["serve"]["backend"])

    @property
    def roles(self) -> list[str]:
        """The roles whose environments a run needs."""
        return sorted({"train", "evaluate", self.serve_role})

    def environment_dir(self, role: str) -> str:
        """`workflow` is the environment that runs Snakemake itself."""
        if role == "workflow":
            return shipped(".venv")
        settings = settings_from(EnvironmentSettings, self.config["environments"], "environments")
        return shipped(settings.directory(role))

    def python(self, role: str) -> str:
        """The interpreter of an environment."""
        return f"{self.environment_dir(role)}/bin/python"

    def environment(self, role: str) -> str:
        """The marker of a whole environment: another lock reruns what was made with it."""
        return f"{self.environment_dir(role)}.ok"

    # Donors (vl: the vision donor, llm: the language donor)

    def demo_donor_name(self, role: str) -> str:
        """Of the donor that the demo makes. Never a path of the user's, also where the donors are not the demo's."""
        return f"demo-{role}-seed{self.config['seed']}"

    def demo_donor_dir(self, role: str) -> str:
        return f"{DONORS_DIR}/{self.demo_donor_name(role)}"

    def donor_name(self, role: str) -> str:
        """Named by its source, so that runs with different donors do not share files."""
        donor = self.config["donors"][role]
        if donor["kind"] == "demo":
            return self.demo_donor_name(role)
        if donor["kind"] == "local":
            # Two directories of one name are two donors.
            place = hashlib.sha256(str(Path(donor["path"]).absolute()).encode()).hexdigest()[:12]
            return f"local-{role}-{file_name(Path(donor['path']).name)}-{place}"
        return "--".join([donor["kind"], *Path(donor["id"]).parts, donor["revision"]])

    def donor_dir(self, role: str) -> str:
        """Where the donor's weights lie: the user's own directory, or ours."""
        donor = self.config["donors"][role]
        return str(donor["path"]) if donor["kind"] == "local" else f"{DONORS_DIR}/{self.donor_name(role)}"

    def donor_manifest(self, role: str) -> str:
        return f"{DONORS_DIR}/{self.donor_name(role)}.json"

    def donor_check(self, role: str) -> str:
        """The record that the files beside the donor's weights can be used."""
        return f"{DONORS_DIR}/{self.donor_name(role)}.check.json"

    def donor_time(self, role: str) -> str:
        """How long it took to make a donor, or to fetch it and record its checksums."""
        if self.config["donors"][role]["kind"] == "demo":
            return self.demo_donor_time(role)
        return f"{DONORS_DIR}/{self.donor_name(role)}.recorded.tsv"

    def demo_donor_time(self, role: str) -> str:
        return f"{self.demo_donor_dir(role)}.made.tsv"

    @property
    def role_of_donor(self) -> dict[str, str]:
        return {self.donor_name(role): role for role in ("vl", "llm")}

    # Data, graft, training

    def prepared_rows(self, stage: str) -> str:
        return self.result(f"data/{stage}.prepared.jsonl")

    def row_origins(self, stage: str) -> str:
        return self.result(f"data/{stage}.origins.json")

    def dataset(self, stage: str) -> str:
        return self.result(f"data/{stage}.jsonl")

    def dataset_check(self, stage: str) -> str:
        return self.result(f"data/{stage}.check.json")

    @property
    def graft_dir(self) -> str:
        return self.result("graft")

    @property
    def graft_config(self) -> str:
        return f"{self.graft_dir}/config.json"

    @property
    def model_files_dir(self) -> str:
        return self.result("model_files")

    @property
    def ledger(self) -> str:
        """Written last, with the sha256 of each tensor: it represents the graft."""
        return f"{self.graft_dir}/ledger.tsv"

    @property
    def fidelity(self) -> str:
        return f"{self.graft_dir}/fidelity.json"

    @property
    def is_refitted(self) -> bool:
        return bool(self.config["graft"]["calibration"] == "affine")

    @property
    def refit(self) -> str:
        return self.result("calibration/q_k_refit.safetensors")

    @property
    def calibration(self) -> str:
        return self.result("calibration/calibration.json")

    def metrics(self, stage: str) -> str:
        return self.result(f"{stage}/metrics.json")

    def checkpoint_dir(self, model: str) -> str:
        """Where a model of the table lies."""
        if model == "parent":
            return self.donor_dir("vl")
        return self.graft_dir if model == "graft" else self.result(f"{model}/checkpoint")

    def checkpoint_identity(self, model: str) -> str:
        """The small file that changes with a model's weights."""
        if model == "parent":
            return self.donor_manifest("vl")
        return self.ledger if model == "graft" else self.metrics(model)

    # Questions and scores

    @property
    def backend(self) -> str:
        return str(self.config["evaluate"]["backend"])

    @property
    def models(self) -> list[str]:
        return list(self.config["evaluate"]["models"])

    @cached_property
    def benchmarks(self) -> dict[str, ListedBenchmark]:
        return listed_benchmarks(self.config["evaluate"])

    @property
    def shares(self) -> list[int]:
        """Numbers of the shares of the questions, one a node; empty where one node asks them all."""
        num_nodes = self.config["evaluate"]["serve"]["num_nodes"]
        return list(range(num_nodes)) if num_nodes > 1 else []

    def fetched_table(self, dataset: str) -> str:
        """The table of a benchmark that is fetched, by the name that EvalScope's backend has for it."""
        directory = FETCHED_DIR / "native" if self.backend == "native" else FETCHED_DIR
        return str(directory / f"{dataset}.tsv")

    def questions(self, benchmark: str) -> str:
        """The table of questions."""
        listed = self.benchmarks[benchmark]
        if listed.own_path and listed.own_path.suffix in OWN_SUFFIXES:
            return self.result(f"questions/{benchmark}.tsv")
        return self.fetched_table(listed.dataset)

    def questions_identity(self, benchmark: str) -> str:
        """The file that changes with the questions: the record of a table that was verified, or of one's own that was checked."""
        path = Path(self.questions(benchmark))
        if path.is_relative_to(FETCHED_DIR):
            return str(path.with_suffix(".json" if self.backend == "native" else ".md5"))
        return self.questions_check(benchmark)

    def questions_check(self, benchmark: str) -> str:
        """The record that one's own table was checked."""
        return self.result(f"questions/{benchmark}.json")

    def questions_limits(self, benchmark: str) -> list[str]:
        """The record that each question fits into the limits of the server; none for transformers, which has no such limits."""
        is_limited = self.config["evaluate"]["serve"]["backend"] == "vllm"
        return [self.result(f"questions/{benchmark}.limits.json")] if is_limited else []

    def records(self, benchmark: str, model: str) -> str:
        """One record a question and seed, for one model."""
        return self.result(f"eval/{benchmark}/{model}.jsonl")

    def records_provenance(self, benchmark: str, model: str) -> str:
        return self.result(f"eval/{benchmark}/{model}.json")

    def share(self, benchmark: str, model: str, share: int | str) -> str:
        return self.result(f"eval/{benchmark}/{model}.shares/{share}.json")

    def scores(self, benchmark: str) -> str:
        return self.result(f"eval/{benchmark}.csv")

    def scores_provenance(self, benchmark: str) -> str:
        return self.result(f"eval/{benchmark}.json")

    def comparison(self, benchmark: str) -> str:
        return self.result(f"eval/{benchmark}.comparison.csv")

    def evaluation_log(self, benchmark: str, model: str, share: int | str | None = None) -> str:
        part = "" if share is None else f"-share{share}"
        return self.log(f"eval-{benchmark}-{model}{part}")

    # Report and model card

    @property
    def effective_config(self) -> str:
        return self.result("config.json")

    @property
    def report(self) -> str:
        return self.result("report.html")

    @property
    def curves_dir(self) -> str:
        return self.result("curves")

    def curve(self, stage: str) -> str:
        """A stage's loss curve, as the report draws it."""
        return f"{self.curves_dir}/{stage}.svg"

    def disagreements(self, benchmark: str) -> str:
        return self.result(f"eval/{benchmark}.disagreements.html")

    def model_card(self, stage: str) -> str:
        return f"{self.checkpoint_dir(stage)}/README.md"

    def checkpoint_check(self, stage: str) -> str:
        return self.result(f"{stage}/checkpoint.check.json")

    @property
    def step_times(self) -> dict[str, str]:
        """Files of Snakemake's `benchmark:` by the step's name; training and evaluation record their own times."""
        return {
            "vision donor": self.donor_time("vl"),
            "language donor": self.donor_time("llm"),
            "graft": self.result("times/graft.tsv"),
            "fidelity": self.result("times/fidelity.tsv"),
        }

    @property
    def locks(self) -> list[str]:
        """The locks of the environments that a run uses."""
        return [shipped(f"envs/{role}.lock") for role in sorted({"workflow", *self.roles})]
