"""Random donors in the hub's format, through the saving functions of the demo's donors; nothing is trained.

By hand, from the repository root (seconds):
  .venvs/train/bin/python tests/helpers/make_tiny_donors.py --output-dir DIR     → DIR/vl and DIR/llm
"""

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

import torch  # noqa: E402

from scripts.demo.donor_files import save_weights, start_llm_donor, start_vl_donor  # noqa: E402
from scripts.demo.settings import LanguageSizes, Qwen3Sizes, VisionTowerSizes  # noqa: E402

# The first 256 ranks are the bytes; a few merges more make the words of a prompt short enough.
NUM_BASE_TOKENS = 512
VISION = VisionTowerSizes(depth=2, hidden_size=32, intermediate_size=48, num_heads=2)
VL_LANGUAGE = LanguageSizes(
    hidden_size=48, intermediate_size=64, num_hidden_layers=1, num_attention_heads=3, num_key_value_heads=1
)
LLM_LANGUAGE = Qwen3Sizes(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    initializer_range=0.1,
    tie_word_embeddings=True,
)


def main() -> None:
    """Makes both donors."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output-dir", required=True, type=Path)
    output_dir = parser.parse_args().output_dir
    vl_dir, llm_dir = output_dir / "vl", output_dir / "llm"
    for directory in (vl_dir, llm_dir):
        directory.mkdir(parents=True, exist_ok=True)
    models = {
        vl_dir: start_vl_donor(vl_dir, NUM_BASE_TOKENS, VISION, VL_LANGUAGE, seed=0),
        llm_dir: start_llm_donor(llm_dir, NUM_BASE_TOKENS, LLM_LANGUAGE, seed=0),
    }
    for directory, model in models.items():
        with torch.no_grad():  # a fresh norm is all ones, which would hide a norm that was lost
            for parameter_name, parameter in model.named_parameters():
                if "norm" in parameter_name or "ln_q" in parameter_name:
                    parameter.copy_(torch.exp(0.3 * torch.randn_like(parameter)))
        save_weights(model, directory)


if __name__ == "__main__":
    main()
