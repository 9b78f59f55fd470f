"""The recipe at full size on one GPU: how long its steps take and how much memory they need, with weights that are random.

Donors of a published pair's true shapes (config/models), in the hubs' files and with Qwen's own vocabulary, photographs as
large as MAX_PIXELS, and config.yaml itself, but for what one GPU and a few minutes force to be different: one process a
stage, a few steps, short answers. Snakemake then runs the graft, its proof, the stages and the evaluation by vLLM as it does for
the real weights. Time and memory do not hang on what the weights are; scores and losses do, so none is reported.

Full training needs 16 bytes a parameter where no other GPU shares them: for a stage 2 on one GPU choose a smaller pair.

It has run up to the evaluation, once, on a machine that was not its own (docs/clusters.md), so there are no results of it yet.

By hand, on a machine with a GPU of 80 GB, after `make environments` and `snakemake .venvs/serve.ok --cores all`:
    .venvs/train/bin/python benchmarks/full_size.py            # 100 GB of disk; adds to benchmarks/results/full_size.md
    .venvs/train/bin/python benchmarks/full_size.py --pair Qwen2.5-VL-3B-Instruct Qwen3-1.7B --stages stage1 stage2
"""

import argparse
import csv
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import yaml  # noqa: E402
from PIL import Image  # noqa: E402

from benchmarks.published_donors import PUBLISHED_CONFIGS_DIR, make_donors  # noqa: E402
from benchmarks.results_page import write_section  # noqa: E402
from scripts.common.errors import UserError, run_program  # noqa: E402
from scripts.common.files import write_json_atomically  # noqa: E402
from scripts.common.input_files import read_json  # noqa: E402
from scripts.demo.donor_files import generation_config, preprocessor_config  # noqa: E402
from scripts.demo.qwen_tokenizer import (  # noqa: E402
    NUM_QWEN_BASE_TOKENS,
    QWEN3_CHAT_TEMPLATE,
    VL_CHAT_TEMPLATE,
    build_tokenizer,
    save_tokenizer,
)
from scripts.environments.installed_packages import package_dir, versions_in  # noqa: E402
from scripts.graft.fidelity import read_fidelity  # noqa: E402

STAGES = ("stage1", "stage2")
NUM_QUESTIONS = 256
MAX_ANSWER_TOKENS = 128
PICTURE_SIZE_PX = (1160, 860)  # just below config.yaml's MAX_PIXELS
OPTIONS = ("a flower", "a temple", "a street", "a cat")


def write_donors(directory: Path, pair: tuple[str, str]) -> None:
    """Two directories of the donors' names: true configurations, shapes and vocabulary, random weights.

    The vision donor's language model, which the graft does not read, is a hole in its files.
    """
    templates = (VL_CHAT_TEMPLATE, QWEN3_CHAT_TEMPLATE)
    for made_dir, name, template in zip(make_donors(directory, *pair, with_holes=True), pair, templates, strict=True):
        donor_dir = made_dir.rename(directory / name)
        shutil.copy(PUBLISHED_CONFIGS_DIR / name / "config.json", donor_dir / "config.json")
        tokenizer = build_tokenizer(NUM_QWEN_BASE_TOKENS, qwen3=name == pair[1])
        save_tokenizer(tokenizer, donor_dir, template)
        write_json_atomically(donor_dir / "generation_config.json", generation_config(tokenizer, {}))
    write_json_atomically(directory / pair[0] / "chat_template.json", {"chat_template": VL_CHAT_TEMPLATE})
    write_json_atomically(directory / pair[0] / "preprocessor_config.json", preprocessor_config())


def photographs(directory: Path, number: int) -> Iterator[Path]:
    """So many sections of scikit-learn's two photographs, each another one, as JPEG."""
    pictures_dir = package_dir(Path(sys.executable), "sklearn") / "datasets/images"
    sources = [Image.open(pictures_dir / name).convert("RGB") for name in ("flower.jpg", "china.jpg")]
    for each in range(number):
        source = sources[each % len(sources)]
        left, top = each % 97, each % 61
        section = source.crop((left, top, left + source.width - 100, top + source.height - 65))
        path = directory / f"{each}.jpg"
        section.resize(PICTURE_SIZE_PX).save(path, quality=90)
        yield path


def write_data(directory: Path, num_rows: int) -> None:
    """directory/train.jsonl with `num_rows` rows and directory/questions.jsonl with NUM_QUESTIONS questions."""
    (directory / "pictures").mkdir()
    paths = list(photographs(directory / "pictures", max(num_rows, NUM_QUESTIONS)))
    answer = "It is a photograph. " * 10
    with open(directory / "train.jsonl", "w", encoding="utf-8") as file:
        for path in paths[:num_rows]:
            asked = {"role": "user", "content": "<image>What do you see?"}
            messages = [asked, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": messages, "images": [str(path)]}) + "\n")
    with open(directory / "questions.jsonl", "w", encoding="utf-8") as file:
        for number, path in enumerate(paths[:NUM_QUESTIONS]):
            question = {
                "question": "What do you see?",
                "images": [str(path)],
                "options": OPTIONS,
                "answer": "AB"[number % 2],
            }
            file.write(json.dumps(question) + "\n")


def configuration(directory: Path, pair: Sequence[str], stages: Sequence[str], num_steps: int) -> dict[str, Any]:
    """config.yaml with these donors and data, one process a stage, and `num_steps` steps."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    config["results"] = f"results/full_size/{pair[1]}"
    donors_dir = directory / "donors"
    config["donors"] = {
        role: {"kind": "local", "path": str(donors_dir / name)} for role, name in zip(("vl", "llm"), pair, strict=True)
    }
    for stage in STAGES:
        config[stage] |= {"datasets": [str(directory / "train.jsonl")], "num_processes_per_node": 1}
        del config[stage]["flags"]["num_train_epochs"]
        config[stage]["flags"] |= {"max_steps": num_steps, "logging_steps": 1}
    config["evaluate"] |= {"models": [stages[-1]], "benchmarks": [{"photographs": str(directory / "questions.jsonl")}]}
    config["evaluate"]["vlmevalkit"] |= {"max_tokens": MAX_ANSWER_TOKENS}
    return config


def samples_per_step(config: Mapping[str, Any]) -> int:
    """Of stage 1, in one process."""
    flags = config["stage1"]["flags"]
    return int(flags["per_device_train_batch_size"] * flags["gradient_accumulation_steps"])


def run(config: Mapping[str, Any], config_path: Path, target: str) -> float:
    """Makes a target; the seconds that it took. Raises UserError when Snakemake fails."""
    write_json_atomically(config_path, config)
    command = [str(ROOT / ".venv/bin/snakemake"), target, "--cores", "all", "--configfile", str(config_path)]
    started_at = time.monotonic()
    # Snakemake's jobs find `snakemake` and Python where a user's shell would.
    environment = {**os.environ, "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"}
    if subprocess.run(command, cwd=ROOT, env=environment).returncode:
        raise UserError(f"`{' '.join(command)}` failed; its message is above")
    return time.monotonic() - started_at


def seconds_in(path: Path) -> float:
    """The time that Snakemake's `benchmark:` has noted."""
    with open(path, newline="", encoding="utf-8") as file:
        return float(next(csv.DictReader(file, delimiter="\t"))["s"])


def gpu_name() -> str:
    """The GPU as its driver names it, with its memory. Raises UserError where there is none."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.check_output(command, text=True).strip().splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise UserError(
            f"nvidia-smi: {error}; expected a GPU, which this benchmark measures; run it where there is one"
        ) from error


def stage_rows(results: Path, stages: Sequence[str]) -> Iterator[str]:
    """One row a stage."""
    yield "| stage | parameters trained | samples a step | step, median | tokens a second | most GPU memory | start to export |"
    yield "|---|---|---|---|---|---|---|"
    for stage in stages:
        metrics = read_json(results / stage / "metrics.json")
        trained = sum(metrics["num_trainable_parameters"].values()) / 1e6
        yield (
            f"| {stage} | {trained:.0f} million of {sum(metrics['num_parameters'].values()) / 1e9:.2f} billion | "
            f"{metrics['num_samples_seen'] // metrics['num_steps']} | {metrics['step_time_s']['median']:.2f} s | "
            f"{metrics['num_tokens_per_s']:.0f} | {metrics['peak_gpu_memory_gib']:.1f} GiB | {metrics['wall_time_s']:.0f} s |"
        )


def section(
    pair: Sequence[str], config: Mapping[str, Any], stages: Sequence[str], times_s: Mapping[str, float], gpu: str
) -> str:
    """The page's section about one pair."""
    results = ROOT / config["results"]
    pins = versions_in(Path(sys.executable), ["ms-swift", "transformers", "torch", "deepspeed"])
    pins |= versions_in(ROOT / ".venvs/serve/bin/python", ["vllm"])
    fidelity = read_fidelity(results / "graft/fidelity.json")
    provenance = read_json(results / f"eval/photographs/{stages[-1]}.json")
    num_under_way = config["evaluate"]["vlmevalkit"]["nproc"]
    parts = [
        f"## {' + '.join(pair)}, {datetime.date.today().isoformat()}, {config['stage1']['flags']['max_steps']} steps a stage",
        "",
        f"{gpu}; {len(os.sched_getaffinity(0))} cores; "
        + ", ".join(f"{name}=={version}" for name, version in pins.items())
        + ". Random weights of the pair's true shapes; config.yaml but for one process a stage, the number of steps and "
        f"answers of at most {MAX_ANSWER_TOKENS} tokens.",
        "",
        f"Graft {seconds_in(results / 'times/graft.tsv'):.1f} s; its proof on the processors ({fidelity.dtype}) "
        f"{seconds_in(results / 'times/fidelity.tsv'):.0f} s; all up to the last stage {times_s['training']:.0f} s.",
        "",
        *stage_rows(results, stages),
        "",
        f"Served by vLLM and asked {provenance['num_questions']} questions by VLMEvalKit, {num_under_way} "
        f"at a time: {times_s['evaluation']:.0f} s from the server's start to the table.",
    ]  # fmt: skip
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", nargs=2, default=("Qwen2.5-VL-7B-Instruct", "Qwen3-8B"), help="of config/models")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=["stage1"], help="trained, in this order")
    parser.add_argument("--num-steps", type=int, default=6)
    parser.add_argument("--scratch-dir", type=Path, default=ROOT / "work")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/full_size.md")
    arguments = parser.parse_args()
    gpu = gpu_name()
    arguments.scratch_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.scratch_dir.resolve()) as name:
        directory = Path(name)
        config = configuration(directory, arguments.pair, arguments.stages, arguments.num_steps)
        write_donors(directory / "donors", arguments.pair)
        write_data(directory, arguments.num_steps * samples_per_step(config))
        results, last = config["results"], arguments.stages[-1]
        times_s = {
            "training": run(config, directory / "config.json", f"{results}/{last}/metrics.json"),
            "evaluation": run(config, directory / "config.json", f"{results}/eval/photographs.csv"),
        }
        report = section(arguments.pair, config, arguments.stages, times_s, gpu)
    print(report)
    write_section(arguments.output, "# The recipe at full size, on one GPU", report)


if __name__ == "__main__":
    run_program(main)
