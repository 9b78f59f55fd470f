"""Trains a small Qwen3 on real text: a language donor whose q/k norms matter, and a random vision donor that fits it.

The demo's donor learns so short a task that its norms stay near one. Here the gains start a little scattered and learn
like everything else, on a text long enough that dropping them afterwards costs.

By hand, from the repository root (half a minute on two cores):
  .venvs/train/bin/python tests/helpers/make_trained_donor.py --seed 0 --texts texts/calibration.txt \
    --output-dir DIR \
    --settings '{"num_base_tokens": 512, "language": {…}, "num_steps": 300, …}'     → DIR/llm and DIR/vl
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

import torch  # noqa: E402
from torch.nn import functional  # noqa: E402

from scripts.common.settings import settings_from  # noqa: E402
from scripts.demo.donor_files import save_weights, start_llm_donor, start_vl_donor  # noqa: E402
from scripts.demo.donor_training import is_qk_gain  # noqa: E402
from scripts.demo.qwen_tokenizer import build_tokenizer  # noqa: E402
from scripts.demo.settings import LanguageSizes, Qwen3Sizes, VisionTowerSizes  # noqa: E402

# Standard deviation of the logarithm of a gain at the start.
LOG_GAIN_STD = 0.2
MATRIX_WEIGHT_DECAY = 0.1
NUM_STEPS_BETWEEN_LINES = 50
VISION = VisionTowerSizes(depth=1, hidden_size=32, intermediate_size=48, num_heads=2)


def train(model: Any, ids: torch.Tensor, settings: dict[str, Any]) -> float:
    """Trains on random windows of a token stream; returns the mean loss in nats of the last tenth of the steps."""
    gains = [p for name, p in model.named_parameters() if is_qk_gain(name)]
    others = [p for name, p in model.named_parameters() if not is_qk_gain(name)]
    with torch.no_grad():
        for gain in gains:
            gain.copy_(torch.exp(LOG_GAIN_STD * torch.randn_like(gain)))
    rate, num_steps, length = settings["learning_rate"], settings["num_steps"], settings["sequence_length"]
    optimizer = torch.optim.AdamW(
        [
            {"params": others, "lr": rate, "weight_decay": MATRIX_WEIGHT_DECAY},
            {"params": gains, "lr": rate, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=num_steps, pct_start=0.1
    )
    losses = []
    for step in range(1, num_steps + 1):
        starts = torch.randint(0, len(ids) - length, (settings["batch_size"],)).tolist()
        batch = torch.stack([ids[start : start + length] for start in starts])
        logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
        loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % NUM_STEPS_BETWEEN_LINES == 0:
            print(f"step {step} of {num_steps}: loss {loss.item():.3f}", file=sys.stderr, flush=True)
    last = losses[-max(1, num_steps // 10) :]
    return sum(last) / len(last)


def make_trained_donors(text_paths: Sequence[Path], settings: dict[str, Any], seed: int, output_dir: Path) -> None:
    """Makes llm/ and vl/ in `output_dir`, which must not have them."""
    for name in ("llm", "vl"):
        (output_dir / name).mkdir(parents=True)
    head_dim = settings["language"]["head_dim"]
    num_base_tokens = settings["num_base_tokens"]
    vl_language = LanguageSizes(
        hidden_size=head_dim,
        intermediate_size=head_dim,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    save_weights(start_vl_donor(output_dir / "vl", num_base_tokens, VISION, vl_language, seed), output_dir / "vl")

    language = settings_from(Qwen3Sizes, settings["language"], "language")
    model = start_llm_donor(output_dir / "llm", num_base_tokens, language, seed)
    tokenizer = build_tokenizer(num_base_tokens, qwen3=True)
    text = "\n\n".join(path.read_text(encoding="utf-8") for path in text_paths)
    loss = train(model, torch.tensor(tokenizer.encode(text).ids), settings)
    save_weights(model, output_dir / "llm")
    gains = torch.cat([p.detach().flatten() for name, p in model.named_parameters() if is_qk_gain(name)])
    print(f"loss {loss:.3f}; q/k gains {gains.min():.2f} to {gains.max():.2f}", file=sys.stderr)


def main() -> None:
    """Makes one pair of donors."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--texts", required=True, type=Path, nargs="+", help="files of plain text")
    parser.add_argument("--settings", required=True, type=json.loads, help="sizes and training, as JSON")
    parser.add_argument("--output-dir", required=True, type=Path)
    arguments = parser.parse_args()
    make_trained_donors(arguments.texts, arguments.settings, arguments.seed, arguments.output_dir)


if __name__ == "__main__":
    main()
