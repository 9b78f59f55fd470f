"""How long the graft takes and how much memory it needs, beside `cp` of the same bytes and the recipe's load-copy-save.

Donors of a published pair's true shapes (config/models) are made in a scratch directory, with random weights, and each
method runs on them in turn, several times, in alternating order, each time with a cold page cache (where
/proc/sys/vm/drop_caches may be written), memory that was in use a moment before, and up to the last byte on disk:

- graft, linked: scripts/graft/graft.py as the rule runs it by default: the language donor's shards are linked, not copied;
- graft, copied: the same with `link: never`, or across file systems;
- graft, qwen2_5_vl: the published recipe's architecture, whose shards lack the q/k norms and are written anew;
- cp + sync: the graft's weight files, copied and synced: the least that a copy must read and write;
- load-copy-save: what the published recipe does, by transformers: load both, build a third, copy, save.

The donors' manifests are made before, as the rule `donor` makes them; their time is stated. What the graft does not read of
the vision donor, its language model, is a hole in the file where load-copy-save is not asked for: it would not fit the disk.

By hand, from the repository root:
  .venv/bin/python benchmarks/graft.py     # the largest pair that load-copy-save, in the stock classes, can do in 24 GiB
  .venv/bin/python benchmarks/graft.py --pair Qwen2.5-VL-7B-Instruct Qwen3-8B --repetitions 5 --without load-copy-save
Both add to benchmarks/results/graft.md.
"""

import argparse
import datetime
import json
import mmap
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from benchmarks.published_donors import make_donors  # noqa: E402
from benchmarks.results_page import write_section  # noqa: E402
from scripts.donors.safetensors_files import read_checkpoint  # noqa: E402

SETTINGS = {"aligner": "fresh", "calibration": "none", "max_shard_gb": 4}
SETTINGS_OF_METHOD = {
    "graft, linked": {**SETTINGS, "architecture": "qwen3", "link": "auto"},
    "graft, copied": {**SETTINGS, "architecture": "qwen3", "link": "never"},
    "graft, qwen2_5_vl": {**SETTINGS, "architecture": "qwen2_5_vl", "link": "auto"},
}

# Not the method that anything is held against, and ten times slower: fewer runs of it are enough.
SLOW_METHOD, NUM_SLOW_REPETITIONS = "load-copy-save", 3

DROP_CACHES_PATH = Path("/proc/sys/vm/drop_caches")

# What whoever uses a graft does first: every tensor is read back and compared with its row of the ledger.
READ_BACK = """
import sys; from pathlib import Path; from scripts.graft.verification import check_ledger
check_ledger(Path(sys.argv[1]))
"""

# Run by the train environment's Python: donors and result as arguments.
LOAD_COPY_SAVE = """
import sys, torch
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2_5_VLForConditionalGeneration
vl_dir, llm_dir, config_dir, output_dir = sys.argv[1:]
vision = Qwen2_5_VLForConditionalGeneration.from_pretrained(vl_dir, dtype=torch.bfloat16)
language = AutoModelForCausalLM.from_pretrained(llm_dir, dtype=torch.bfloat16)
torch.set_default_dtype(torch.bfloat16)
model = Qwen2_5_VLForConditionalGeneration(AutoConfig.from_pretrained(config_dir))
with torch.no_grad():
    new = dict(model.model.visual.named_parameters())
    for name, values in vision.model.visual.named_parameters():
        if new[name].shape == values.shape:
            new[name].copy_(values)
    new = dict(model.model.language_model.named_parameters())
    for name, values in language.model.named_parameters():
        if name in new:
            new[name].copy_(values)
    if not model.config.tie_word_embeddings:
        model.lm_head.weight.copy_(language.lm_head.weight)
model.save_pretrained(output_dir, max_shard_size="4GB")
"""

# A process starts with the resident size of the one that forked it, so a small one must do that.
MEASURE = """
import json, os, sys, time
started_at = time.monotonic()
child = os.fork()
if not child:
    os.dup2(2, 1)
    os.execvp(sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(child, 0)
figures = {
    "wall_time_s": time.monotonic() - started_at,
    "cpu_time_s": usage.ru_utime + usage.ru_stime,
    "peak_memory_mb": usage.ru_maxrss * 1024 / 1e6,
}
print(json.dumps(figures))
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class Run:
    """One run of one method."""

    wall_time_s: float
    cpu_time_s: float
    peak_memory_mb: float


def record_donor(role: str, directory: Path) -> tuple[Path, float]:
    """The donor's manifest, as the rule makes it, and the seconds it took."""
    manifest_path = directory.with_suffix(".json")
    command = [sys.executable, "scripts", "donors.fetch_donor", "--role", role, "--dir", str(directory), "--manifest"]
    command += [str(manifest_path), "--source", json.dumps({"kind": "local", "path": str(directory)})]
    started_at = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True)
    return manifest_path, time.monotonic() - started_at


def cool_down(paths: Sequence[Path]) -> bool:
    """Writes everything out and empties the page cache; says whether it was the whole cache or these files alone."""
    os.sync()
    try:
        DROP_CACHES_PATH.write_text("3", encoding="ascii")
        return True
    except OSError:
        for directory in paths:
            for path in directory.glob("*.safetensors"):
                descriptor = os.open(path, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)
        return False


def touch_memory(num_bytes: int) -> None:
    """Uses that much memory for a moment, in a process of its own.

    A virtual machine's host takes back memory that was freed, and has to find it again page by page: without this, `cp` of
    the same bytes took 1.3 or 7.1 s, by chance (docs/log.md).
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    script = f"import mmap; mmap.mmap(-1, {num_bytes}, flags={int(flags)})"
    subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True)


def available_memory_bytes() -> int:
    """What can be had without swapping."""
    (line,) = [line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable:")]
    return int(line.split()[1]) * 1024


def measure(command: Sequence[str | Path]) -> Run:
    """Runs a command from the repository root; its peak memory is that of its largest process."""
    measured = [sys.executable, "-I", "-S", "-c", MEASURE, *map(str, command)]
    process = subprocess.run(measured, cwd=ROOT, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed:\n{process.stderr}")
    return Run(**json.loads(process.stdout.splitlines()[-1]))


def synced(command: str) -> list[str]:
    """A shell command of which all output is on disk when it ends."""
    return ["sh", "-ec", command]


def derive(directory: Path, donors: Sequence[str | Path], settings: Mapping[str, Any]) -> Path:
    """The graft's config.json for these settings."""
    config_path = directory / str(settings["architecture"]) / "config.json"
    command = [sys.executable, "scripts", "graft.derive_config", *map(str, donors), "--settings", json.dumps(settings)]
    subprocess.run([*command, "--output", str(config_path)], cwd=ROOT, check=True)
    return config_path


def methods(
    vl_dir: Path, llm_dir: Path, manifests: Sequence[Path], scratch_dir: Path, output_dir: Path
) -> dict[str, list[str | Path]]:
    """{name: command}; each makes `output_dir`. What cp copies is in `scratch_dir`/reference."""
    donors: list[str | Path] = ["--vl-dir", vl_dir, "--llm-dir", llm_dir]
    commands: dict[str, list[str | Path]] = {}
    for name, settings in SETTINGS_OF_METHOD.items():
        command: list[str | Path] = [sys.executable, "scripts", "graft.graft", *donors, "--vl-manifest", manifests[0]]
        command += ["--llm-manifest", manifests[1], "--model-config", derive(scratch_dir / "configs", donors, settings)]
        command += ["--settings", json.dumps(settings), "--seed", "0", "--model-code-dir", "model/qwen2_5_vl_qwen3"]
        commands[name] = [*command, "--output-dir", output_dir]
    reference_dir = scratch_dir / "reference"
    copy = f"mkdir {output_dir} && cp {reference_dir}/*.safetensors {output_dir} && sync {output_dir}/*"
    commands["cp + sync"] = [*synced(copy)]
    commands["read back"] = [sys.executable, "-c", READ_BACK, reference_dir]
    stock_config_dir = scratch_dir / "configs/qwen2_5_vl"
    load = f'$0 -c "$1" {vl_dir} {llm_dir} {stock_config_dir} {output_dir} && sync {output_dir}/*'
    commands["load-copy-save"] = [*synced(load), ROOT / ".venvs/train/bin/python", LOAD_COPY_SAVE]
    return commands


def run_all(
    scratch_dir: Path, pair: tuple[str, str], num_repetitions: int, without: Sequence[str]
) -> tuple[dict[str, list[Run]], str]:
    """Makes the donors, runs every method `num_repetitions` times, and says what was read and written."""
    with_holes = SLOW_METHOD in without
    vl_dir, llm_dir = make_donors(scratch_dir / "donors", *pair, with_holes=with_holes)
    records = [record_donor("vl", vl_dir), record_donor("llm", llm_dir)]
    output_dir, reference_dir = scratch_dir / "output", scratch_dir / "reference"
    commands = methods(vl_dir, llm_dir, [path for path, _ in records], scratch_dir, output_dir)
    commands = {name: command for name, command in commands.items() if name not in without}
    # Linked, so that it takes no room beside the donor.
    measure([part if part != output_dir else reference_dir for part in commands["graft, linked"]])

    # The page cache of what is read and of what is written, and some more, as far as there is memory.
    num_result_bytes = sum(path.stat().st_size for path in reference_dir.glob("*.safetensors"))
    num_touched_bytes = min(3 * num_result_bytes, int(0.8 * available_memory_bytes()))
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    was_cold = True
    for repetition in range(num_repetitions):
        for name in list(commands) if repetition % 2 == 0 else reversed(list(commands)):
            if name == SLOW_METHOD and repetition >= NUM_SLOW_REPETITIONS:
                continue
            shutil.rmtree(output_dir, ignore_errors=True)
            was_cold &= cool_down([vl_dir, llm_dir, reference_dir])
            touch_memory(num_touched_bytes)
            runs[name].append(measure(commands[name]))
            print(f"{repetition + 1}/{num_repetitions} {name}: {runs[name][-1]}", file=sys.stderr, flush=True)

    def gigabytes(directory: Path) -> str:
        return f"{sum(tensor.num_bytes for tensor in read_checkpoint(directory).values()) / 1e9:.2f} GB"

    holes = " (its language model as a hole in the file)" if with_holes else ""
    num_shards = len(list(reference_dir.glob("*.safetensors")))
    return runs, (
        f"Donors: {pair[0]}, {gigabytes(vl_dir)}{holes}, and {pair[1]}, {gigabytes(llm_dir)}; result: "
        f"{gigabytes(reference_dir)} in {num_shards} shards. Their manifests took {records[0][1]:.0f} and "
        f"{records[1][1]:.0f} s. Page cache: {'emptied' if was_cold else 'donors evicted'} before each run, then "
        f"{num_touched_bytes / 1e9:.1f} GB of memory touched."
    )


def table(runs: dict[str, list[Run]]) -> Iterator[str]:
    """One row a method."""
    base = runs["cp + sync"]
    base_s = statistics.median(run.wall_time_s for run in base)
    yield "| method | runs | median | least – most | to cp + sync (medians) | least to least | CPU time | peak memory |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, values in runs.items():
        times_s = sorted(run.wall_time_s for run in values)
        median_s = statistics.median(times_s)
        least = times_s[0] / min(run.wall_time_s for run in base)
        cpu_time_s = statistics.median(run.cpu_time_s for run in values)
        peak_mb = max(run.peak_memory_mb for run in values)
        yield (
            f"| {name} | {len(values)} | {median_s:.2f} s | {times_s[0]:.2f} – {times_s[-1]:.2f} s | {median_s / base_s:.2f} | "
            f"{least:.2f} | {cpu_time_s:.1f} s | {peak_mb:.0f} MB |"
        )


def environment_lines(scratch_dir: Path) -> Iterator[str]:
    """Versions and hardware."""
    script = "import torch, transformers; print(torch.__version__, transformers.__version__)"
    train = [str(ROOT / ".venvs/train/bin/python"), "-c", script]
    torch_version, transformers_version = subprocess.check_output(train, text=True).split()[-2:]
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    file_system = subprocess.check_output(["stat", "-f", "-c", "%T", str(scratch_dir)], text=True).strip()
    sha = "with SHA instructions" if "sha_ni" in Path("/proc/cpuinfo").read_text() else "without SHA instructions"
    yield (
        f"Python {platform.python_version()}, numpy {version('numpy')}; load-copy-save: torch {torch_version}, "
        f"transformers {transformers_version}. Linux {platform.release()}, {cpu}, {len(os.sched_getaffinity(0))} cores "
        f"{sha}, {memory_gib:.0f} GiB memory, {file_system}."
    )


@contextmanager
def scratch(directory: Path) -> Iterator[Path]:
    """A directory that is empty at first and gone at the end."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scratch-dir",
        type=Path,
        default=ROOT / "work/benchmark-graft",
        help="25 GB are needed there, 40 for the full size",
    )
    parser.add_argument("--pair", nargs=2, default=("Qwen2.5-VL-3B-Instruct", "Qwen3-1.7B"), help="of config/models")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--without", nargs="*", default=(), help="methods to leave out")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/graft.md")
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    with scratch(arguments.scratch_dir.resolve()) as directory:
        environment = list(environment_lines(directory))
        runs, sizes = run_all(directory, tuple(arguments.pair), arguments.repetitions, arguments.without)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    report = "\n".join(
        [
            f"## {' + '.join(arguments.pair)}, {date}, {arguments.repetitions} repetitions",
            "",
            sizes,
            *environment,
            f"Load average before and after: {load_before:.1f}, {os.getloadavg()[0]:.1f} (the benchmark alone makes 1 to 2).",
            "",
            *table(runs),
        ]
    )
    print(report)
    write_section(arguments.output, "# The graft beside cp and load-copy-save", report)


if __name__ == "__main__":
    main()
