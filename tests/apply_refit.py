"""Puts refitted q and k into a stock graft, in place: the graft made anew by scripts/graft.py has the same names and shapes.

By hand: .venvs/train/bin/python tests/apply_refit.py --graft-dir DIR --refit q_k_refit.safetensors
"""

import argparse
from pathlib import Path

from safetensors.torch import load_file, save_file


def apply_refit(graft_dir: Path, refit_path: Path) -> None:
    """Raises KeyError or ValueError unless each refitted tensor replaces one of the same shape and dtype."""
    refit = load_file(refit_path)
    for path in graft_dir.glob("*.safetensors"):
        tensors = load_file(path)
        for name in tensors.keys() & refit.keys():
            values = refit.pop(name)
            if (values.shape, values.dtype) != (tensors[name].shape, tensors[name].dtype):
                raise ValueError(f"{name}: {values.shape} of {values.dtype} does not fit the graft's")
            tensors[name] = values
        save_file(tensors, path, metadata={"format": "pt"})
    if refit:
        raise KeyError(f"the graft has no {next(iter(refit))}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--graft-dir", required=True, type=Path)
    parser.add_argument("--refit", required=True, type=Path)
    arguments = parser.parse_args()
    apply_refit(arguments.graft_dir, arguments.refit)
