"""Donors of a published pair's true shapes (config/models), with random weights."""

import math
import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers.tiny_donor_files import write_json, write_tiny_donors  # noqa: E402
from scripts.common.input_files import read_json  # noqa: E402
from scripts.donors.safetensors_files import INDEX_NAME  # noqa: E402
from scripts.graft.aligner_init import constant_slabs, normal_slabs  # noqa: E402
from scripts.graft.donor_configs import (  # noqa: E402
    language_shape,
    read_language_donor,
    read_vision_donor,
    text_section,
    tied,
    vision_shape,
)
from scripts.graft.shapes import Shapes, language_shapes, vision_shapes  # noqa: E402
from scripts.graft.shard_layout import OutputTensor, checkpoint_index, lay_out_shards  # noqa: E402
from scripts.graft.shard_writer import SLAB_BYTES, write_shards  # noqa: E402

PUBLISHED_CONFIGS_DIR = ROOT / "config/models"
NORMS = ("norm.weight", "norm1.weight", "norm2.weight", "ln_q.weight")


def make_weights(directory: Path, shapes: Shapes, holes: frozenset[str]) -> None:
    """Random bfloat16 weights of these shapes in place of the tiny ones, in the hubs' order and shards; `holes` are zeros.

    Norms have gains of 1, so that what is computed with the weights is as large as in a new model.
    """
    for path in directory.glob("model*"):
        path.unlink()
    tensors = []
    for name in sorted(shapes):
        num_values = math.prod(shapes[name])
        slabs: Callable[[], Iterable[bytes]]
        if name in holes:
            slabs = partial(tuple)
        elif name.endswith(NORMS):
            slabs = partial(constant_slabs, num_values, 1.0, "BF16", SLAB_BYTES)
        else:
            slabs = partial(normal_slabs, name, num_values, 0.02, "BF16", 0, SLAB_BYTES)
        tensors.append(OutputTensor(name, "BF16", shapes[name], None, slabs))
    shards = lay_out_shards(tensors, 4 * 10**9)
    write_shards(tensors, shards, directory, f"making {directory.name}")
    for shard in shards:
        os.truncate(directory / shard.file_name, shard.num_bytes)
    write_json(directory / INDEX_NAME, checkpoint_index(tensors, shards))


def make_donors(directory: Path, vl_name: str, llm_name: str, with_holes: bool) -> tuple[Path, Path]:
    """Donors in the hubs' format with the published configurations; a tiny tokenizer and its ids replace theirs."""
    vl_dir, llm_dir = write_tiny_donors(directory)
    for donor_dir, name in ((vl_dir, vl_name), (llm_dir, llm_name)):
        config_path = donor_dir / "config.json"
        tiny, published = (read_json(path) for path in (config_path, PUBLISHED_CONFIGS_DIR / name / "config.json"))
        write_json(config_path, published | {key: tiny[key] for key in tiny if key.endswith("_token_id")})
    vl, llm = read_vision_donor(vl_dir), read_language_donor(llm_dir)
    dropped = language_shapes(language_shape(text_section(vl), tied(vl)), qk_norm=False, qkv_bias=True)
    make_weights(
        vl_dir,
        vision_shapes(vision_shape(vl.child("vision_config"))) | dropped,
        frozenset(dropped) if with_holes else frozenset(),
    )
    make_weights(llm_dir, language_shapes(language_shape(llm, tied(llm)), qk_norm=True, qkv_bias=False), frozenset())
    return vl_dir, llm_dir
