"""How near a stock graft comes to its language donor when q and k are refitted, beside the published recipe's graft.

Three small Qwen3 of different shapes and seeds are trained on the first part of the shipped calibration text (each a few
minutes of one core). Each is grafted twice by the programs of the workflow, `qwen2_5_vl` verbatim and with
`calibration: affine`, fitted on that part; scripts/graft/check_fidelity.py then measures both on the text's last part, which
neither the donor nor the fit has seen, and on the licence, which is of another kind.

By hand: .venv/bin/python benchmarks/affine.py            # writes benchmarks/results/affine.md
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from scripts.graft.fidelity import Fidelity, RefitFigures, read_fidelity  # noqa: E402

WORKFLOW_PYTHON, TRAIN_PYTHON = (str(ROOT / path / "bin/python") for path in (".venv", ".venvs/train"))
FITTED_SHARE = 0.85
GRAFT = {"architecture": "qwen2_5_vl", "aligner": "fresh", "max_shard_gb": 4, "link": "auto"}
CALIBRATION = {"max_tokens": 65536, "sequence_length": 256, "ridge": 1e-4, "dtype": "float32", "device": "cpu"}
NUM_HELD_OUT_TOKENS = 8192
# The benchmark shows the figure; the gate is the configuration's.
NO_GATE_NATS = 1e9
REQUIRED_FACTOR = 20
Command = list[str | Path]


@dataclass(frozen=True)
class Shape:
    """One donor's size; the rest of its training is shared."""

    seed: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    num_layers: int

    @property
    def settings(self) -> dict[str, Any]:
        """For tests/helpers/make_trained_donor.py."""
        language = {
            "hidden_size": self.hidden_size,
            "intermediate_size": 3 * self.hidden_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.hidden_size // self.num_heads,
            "initializer_range": 0.02,
            "tie_word_embeddings": True,
        }
        training = {"num_steps": 500, "batch_size": 6, "sequence_length": 256, "learning_rate": 0.003}
        return {"num_base_tokens": 256, "language": language} | training


DONORS = (Shape(0, 128, 4, 2, 3), Shape(1, 128, 2, 1, 3), Shape(2, 96, 3, 1, 4))


@dataclass(frozen=True)
class Result:
    """One donor: the last line of its training, and fidelity.json by graft and text."""

    shape: Shape
    training: str
    fidelity: dict[tuple[str, str], Fidelity]


def run(command: Command) -> str:
    """Runs a program from the repository root; returns the last line that it wrote to stderr."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # donors are made side by side, one a core
    words = [str(part) for part in command]
    finished = subprocess.run(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    if finished.returncode != 0:
        sys.exit(f"error: `{command[1]}` failed:\n{finished.stderr}")
    return finished.stderr.strip().rpartition("\n")[2]


def split_text(directory: Path) -> dict[str, Path]:
    """The calibration text in two, at a paragraph, and the licence."""
    text = (ROOT / "texts/calibration.txt").read_text(encoding="utf-8")
    cut = text.index("\n\n", int(len(text) * FITTED_SHARE))
    paths = {"fitted": directory / "fitted.txt", "held out": directory / "held_out.txt", "licence": ROOT / "LICENSE"}
    paths["fitted"].write_text(text[:cut], encoding="utf-8")
    paths["held out"].write_text(text[cut:], encoding="utf-8")
    return paths


def graft_both(directory: Path, texts: dict[str, Path]) -> Iterator[tuple[str, Path, Command]]:
    """Makes both grafts of the donors in `directory`; gives name, place and the fidelity check's further arguments."""
    donors: Command = ["--vl-dir", directory / "vl", "--llm-dir", directory / "llm"]
    refit, report = directory / "q_k_refit.safetensors", directory / "calibration.json"
    fit = json.dumps(CALIBRATION | {"text": str(texts["fitted"])})
    outputs: Command = ["--work-dir", directory / "work", "--output", refit, "--report", report]
    run([TRAIN_PYTHON, "scripts", "graft.calibrate", *donors[2:], "--settings", fit, *outputs])
    gate: Command = ["--calibration", report, "--max-kl-nats", str(NO_GATE_NATS)]
    for calibration in ("none", "affine"):
        settings = ["--settings", json.dumps(GRAFT | {"calibration": calibration})]
        graft_dir = directory / calibration
        config = graft_dir / "config.json"
        run([WORKFLOW_PYTHON, "scripts", "graft.derive_config", *donors, *settings, "--output", config])
        code: Command = ["--model-code-dir", "model/qwen2_5_vl_qwen3", "--output-dir", graft_dir]
        seed: Command = ["--model-config", config, "--seed", "0"]
        refitted: Command = ["--refit", refit] if calibration == "affine" else []
        run([WORKFLOW_PYTHON, "scripts", "graft.graft", *donors, *settings, *seed, *code, *refitted])
        yield calibration, graft_dir, gate if calibration == "affine" else []


def measure(shape: Shape, directory: Path, texts: dict[str, Path]) -> Result:
    """Trains one donor, grafts it twice, compares."""
    make: Command = [
        TRAIN_PYTHON,
        "tests/helpers/make_trained_donor.py",
        "--seed",
        str(shape.seed),
        "--texts",
        texts["fitted"],
    ]
    training = run([*make, "--settings", json.dumps(shape.settings), "--output-dir", directory])
    fidelity = {}
    for calibration, graft_dir, gate in graft_both(directory, texts):
        for name in ("held out", "licence"):
            settings = {"text": str(texts[name]), "dtype": "float32", "max_tokens": NUM_HELD_OUT_TOKENS}
            output = directory / f"{calibration}-{name}.json"
            check: Command = [TRAIN_PYTHON, "scripts", "graft.check_fidelity", "--graft-dir", graft_dir]
            check += ["--llm-dir", directory / "llm"]
            run([*check, "--settings", json.dumps(settings), "--output", output, *gate])
            fidelity[calibration, name] = read_fidelity(output)
    shutil.rmtree(directory)
    return Result(shape, training, fidelity)


def row(result: Result, name: str) -> str:
    """One line of the table."""
    shape, verbatim, affine = result.shape, result.fidelity["none", name], result.fidelity["affine", name]
    factor = verbatim.kl_mean_nats / affine.kl_mean_nats
    cells = [
        f"seed {shape.seed}: {shape.num_heads} heads of {shape.hidden_size // shape.num_heads}, {shape.num_layers} layers",
        name,
        f"{verbatim.kl_mean_nats:.4f}",
        f"{affine.kl_mean_nats:.4f}",
        f"{factor:.1f}",
        f"{verbatim.perplexity_donor:.3f}",
        f"{verbatim.perplexity_graft:.3f}",
        f"{affine.perplexity_graft:.3f}",
        f"{verbatim.top1_agreement:.3f}",
        f"{affine.top1_agreement:.3f}",
    ]
    return "| " + " | ".join(cells) + " |"


def residual_of(result: Result, projection: str) -> str:
    """Relative residuals on the calibration's own held-out tokens, layer by layer."""
    refit = result.fidelity["affine", "held out"].calibration
    assert isinstance(refit, RefitFigures)
    residuals = {"q": refit.relative_residual_held_out.q, "k": refit.relative_residual_held_out.k}
    return ", ".join(f"{value:.3f}" for value in residuals[projection].by_layer)


def markdown(results: Sequence[Result], load_before: float) -> str:
    """The dated tables, with what they were measured on."""
    versions = results[0].fidelity["affine", "held out"].versions
    residuals = [f"| {r.shape.seed} | {r.training} | {residual_of(r, 'q')} | {residual_of(r, 'k')} |" for r in results]
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return "\n".join(
        [
            "# q and k refitted, beside the recipe's graft",
            "",
            f"{date}, {len(os.sched_getaffinity(0))} cores ({platform.machine()}), Python {platform.python_version()}; "
            + ", ".join(f"{name} {number}" for name, number in versions.items())
            + f". Load average before: {load_before:.1f}. Made by `benchmarks/affine.py`.",
            "",
            f"Fitted on {CALIBRATION['max_tokens']} tokens at most, ridge {CALIBRATION['ridge']:g}; measured on "
            f"{NUM_HELD_OUT_TOKENS} tokens that neither the donor nor the fit has seen.",
            "",
            "| donor | text | KL verbatim | KL affine | factor | ppl donor | verbatim | affine | top-1 verbatim | affine |",
            "|" + "---|" * 10,
            *(row(result, name) for name in ("held out", "licence") for result in results),
            "",
            "| seed | donor's training | residual of q by layer | residual of k by layer |",
            "|---|---|---|---|",
            *residuals,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.parse_args()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        texts = split_text(Path(scratch))
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as workers:
            results = list(workers.map(lambda shape: measure(shape, Path(scratch) / str(shape.seed), texts), DONORS))
    text = markdown(results, load_before)
    print(text)
    (ROOT / "benchmarks/results/affine.md").write_text(text, encoding="utf-8")
    factors = [
        r.fidelity["none", "held out"].kl_mean_nats / r.fidelity["affine", "held out"].kl_mean_nats for r in results
    ]
    if min(factors) < REQUIRED_FACTOR:
        sys.exit(
            f"error: the KL divergence is only {min(factors):.1f} times smaller for one donor; expected {REQUIRED_FACTOR}"
        )


if __name__ == "__main__":
    main()
