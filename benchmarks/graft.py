"""How long the graft takes and how much memory it needs, beside `cp` of the same bytes and the recipe's load-copy-save.

Donors of the true pair's proportions are made in a scratch directory (about 3.6 GB, giving a graft of 1.9 GB in several
shards), and each method runs on them in turn, several times, in alternating order, each time with a cold page cache
(where /proc/sys/vm/drop_caches may be written), memory that was in use a moment before, and up to the last byte on disk:

- graft: scripts/graft.py as the rule runs it: copies, hashes and searches what the result holds, writes a ledger;
- cp + sync: the graft's weight files, copied and synced: the least that any method must read and write;
- copy alone: the graft's plan by copy_file_range, with neither hash nor search;
- load-copy-save: what the published recipe does, by transformers: load both, build a third, copy, save.

By hand, from the repository root: .venv/bin/python benchmarks/graft.py      # writes benchmarks/results/graft.md
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from tiny_donor_files import edit_json, write_json, write_tiny_donors  # type: ignore[import-not-found]  # noqa: E402

from common.aligner_init import normal_slabs  # noqa: E402
from common.graft_plan import Shapes, language_shapes, vision_shapes  # noqa: E402
from common.model_configs import LanguageShape, VisionShape  # noqa: E402
from common.safetensors_files import INDEX_NAME, read_checkpoint  # noqa: E402
from common.safetensors_writer import (  # noqa: E402
    SLAB_BYTES,
    StreamedTensor,
    checkpoint_index,
    lay_out_shards,
    stream_tensors,
)

# The published recipe's architecture, so that all methods make the same tensors.
SETTINGS = {"architecture": "qwen2_5_vl", "aligner": "fresh", "calibration": "none", "max_shard_gb": 0.5}

# As in the true pair, 0.9 bytes of the vision donor are dropped for each byte of the result, and about 1 % of the result
# is a new aligner.
LANGUAGE = LanguageShape(65536, 2048, 6144, 10, 16, 8, 128, False)
DROPPED_LANGUAGE = LanguageShape(65536, 1536, 8960, 14, 12, 2, 128, False)
VISION = VisionShape(32, 640, 1712, 8, 3, 14, 2, 2, 1536)

# Not the method that anything is held against, and ten times slower: fewer runs of it are enough.
SLOW_METHOD, NUM_SLOW_REPETITIONS = "load-copy-save", 3

DROP_CACHES_PATH = Path("/proc/sys/vm/drop_caches")

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
    model.lm_head.weight.copy_(language.lm_head.weight)
model.save_pretrained(output_dir, max_shard_size="500MB")
"""

# Run by the workflow's Python: the graft's own plan, its bytes moved by the kernel alone.
COPY_ALONE = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, "scripts")
import graft
from common.model_configs import read_language_donor, read_vision_donor
from common.safetensors_writer import lay_out_shards
from derive_config import derive_config
vl_dir, llm_dir, output_dir, settings = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4])
vl, llm = read_vision_donor(vl_dir), read_language_donor(llm_dir)
plan = graft.make_plan(vl_dir, llm_dir, vl, llm, derive_config(vl, llm, settings, {}), settings)
tensors = [graft.streamed(entry, 0) for entry in plan if entry.output_name]
output_dir.mkdir(parents=True)
for shard in lay_out_shards(tensors, int(settings["max_shard_gb"] * 1e9)):
    target = os.open(output_dir / shard.file_name, os.O_WRONLY | os.O_CREAT)
    os.write(target, shard.header)
    for tensor in tensors:
        if tensor.name not in shard.places:
            continue
        offset = shard.places[tensor.name].offset
        if tensor.source is None:
            for slab in tensor.make_slabs():
                offset += os.pwrite(target, slab, offset)
            continue
        source, position, left = os.open(tensor.source.path, os.O_RDONLY), tensor.source.offset, tensor.num_bytes
        while left:
            num = os.copy_file_range(source, target, left, position, offset)
            position, offset, left = position + num, offset + num, left - num
        os.close(source)
    os.fsync(target)
    os.close(target)
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


def make_weights(directory: Path, shapes: Shapes) -> None:
    """Random bfloat16 weights of these shapes, in place of the tiny ones, in shards of 1 GB."""
    for path in directory.glob("model*"):
        path.unlink()
    tensors = []
    for name, shape in shapes.items():
        num_values = 1
        for size in shape:
            num_values *= size
        slabs = partial(normal_slabs, name, num_values, 0.02, "BF16", 0, SLAB_BYTES)
        tensors.append(StreamedTensor(name, "BF16", shape, None, slabs))
    shards = lay_out_shards(tensors, 10**9)
    stream_tensors(tensors, shards, directory, f"making {directory.name}")
    write_json(directory / INDEX_NAME, checkpoint_index(tensors, shards))


def language_keys(shape: LanguageShape) -> dict[str, Any]:
    """The keys of config.json that say this shape."""
    return {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
    }


def make_donors(directory: Path) -> tuple[Path, Path]:
    """Donors in the hubs' format, of the proportions above."""
    vl_dir, llm_dir = write_tiny_donors(directory)
    vision = json.loads((vl_dir / "config.json").read_text(encoding="utf-8"))["vision_config"] | {
        "depth": VISION.depth,
        "hidden_size": VISION.hidden_size,
        "intermediate_size": VISION.intermediate_size,
        "num_heads": VISION.num_heads,
        "out_hidden_size": VISION.out_hidden_size,
    }
    rope = {"type": "mrope", "mrope_section": [16, 24, 24]}
    edit_json(vl_dir / "config.json", **language_keys(DROPPED_LANGUAGE), vision_config=vision, rope_scaling=rope)
    edit_json(llm_dir / "config.json", **language_keys(LANGUAGE), head_dim=LANGUAGE.head_dim)
    make_weights(vl_dir, vision_shapes(VISION) | language_shapes(DROPPED_LANGUAGE, qk_norm=False, qkv_bias=True))
    make_weights(llm_dir, language_shapes(LANGUAGE, qk_norm=True, qkv_bias=False))
    return vl_dir, llm_dir


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


def methods(vl_dir: Path, llm_dir: Path, reference_dir: Path, output_dir: Path) -> dict[str, list[str | Path]]:
    """{name: command}; each makes `output_dir`."""
    common: list[str | Path] = ["--vl-dir", vl_dir, "--llm-dir", llm_dir, "--settings", json.dumps(SETTINGS)]
    graft: list[str | Path] = [sys.executable, "scripts/graft.py", *common, "--config", reference_dir / "config.json"]
    graft += ["--seed", "0", "--model-code-dir", "model/qwen2_5_vl_qwen3", "--output-dir", output_dir]
    copy = f"mkdir {output_dir} && cp {reference_dir}/*.safetensors {output_dir} && sync {output_dir}/*"
    copy_alone: list[str | Path] = [sys.executable, "-c", COPY_ALONE, vl_dir, llm_dir, output_dir, json.dumps(SETTINGS)]
    train_python = ROOT / ".venvs/train/bin/python"
    load = f'$0 -c "$1" {vl_dir} {llm_dir} {reference_dir} {output_dir} && sync {output_dir}/*'
    return {
        "graft": graft,
        "cp + sync": [*synced(copy)],
        "copy alone": copy_alone,
        "load-copy-save": [*synced(load), train_python, LOAD_COPY_SAVE],
    }


def run_all(scratch_dir: Path, num_repetitions: int) -> tuple[dict[str, list[Run]], str]:
    """Makes the donors, runs every method `num_repetitions` times, and says what was read and written."""
    vl_dir, llm_dir = make_donors(scratch_dir / "donors")
    reference_dir, output_dir = scratch_dir / "reference", scratch_dir / "output"
    derive = [sys.executable, "scripts/derive_config.py", "--vl-dir", str(vl_dir), "--llm-dir", str(llm_dir)]
    derive += ["--settings", json.dumps(SETTINGS), "--output", str(reference_dir / "config.json")]
    subprocess.run(derive, cwd=ROOT, check=True)
    commands = methods(vl_dir, llm_dir, reference_dir, output_dir)
    measure([part if part != output_dir else reference_dir for part in commands["graft"]])

    # The page cache of what is read and of what is written, and some more.
    num_touched_bytes = 3 * sum(path.stat().st_size for path in reference_dir.glob("*.safetensors"))
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

    num_shards = len(list(reference_dir.glob("*.safetensors")))
    return runs, (
        f"Donors: {gigabytes(vl_dir)} (vision) and {gigabytes(llm_dir)} (language); result: {gigabytes(reference_dir)} in "
        f"{num_shards} shards. Page cache: {'emptied' if was_cold else 'donors evicted'} before each run, "
        f"then {num_touched_bytes / 1e9:.1f} GB of memory touched."
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
        "--scratch-dir", type=Path, default=ROOT / "work/benchmark-graft", help="10 GB are needed there"
    )
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/graft.md")
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    with scratch(arguments.scratch_dir.resolve()) as directory:
        environment = list(environment_lines(directory))
        runs, sizes = run_all(directory, arguments.repetitions)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    report = "\n".join(
        [
            f"## {date}: benchmarks/graft.py, {arguments.repetitions} repetitions",
            "",
            sizes,
            *environment,
            f"Load average before and after: {load_before:.1f}, {os.getloadavg()[0]:.1f} (the benchmark alone makes 1 to 2).",
            "",
            *table(runs),
        ]
    )
    print(report)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text("# The graft beside cp and load-copy-save\n\n" + report + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
