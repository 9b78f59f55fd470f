"""Which files make up a model directory, and the one sha256 that identifies it."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.common.files import sha256_of_file

COMPLETE_NAME = "complete.json"

# Records of the graft and of a training, beside the model but no part of it.
NOT_OF_THE_MODEL = frozenset({"ledger.tsv", "fidelity.json", "settings.json", "metrics.json", COMPLETE_NAME})

# Texts about a model, added after its evaluation: they do not change its identity and are not copied to the next model.
ABOUT_THE_MODEL = ("README", "LICENSE", "NOTICE")

NUM_READERS = 16  # for many small reads, which wait for the disk rather than the processor


def model_files(model_dir: Path) -> list[Path]:
    """The files that make up a model: the weights that its index names and everything beside them, sorted by name."""
    files = [path for path in sorted(model_dir.iterdir()) if path.is_file() and not path.name.startswith(".")]
    return [path for path in files if path.name not in NOT_OF_THE_MODEL and not path.name.startswith(ABOUT_THE_MODEL)]


def file_digests(model_dir: Path) -> dict[str, str]:
    """{name: sha256} of the files that make up a model, sorted by name."""
    files = model_files(model_dir)
    with ThreadPoolExecutor(NUM_READERS) as pool:
        digests = list(pool.map(sha256_of_file, files))
    return {path.name: digest for path, digest in zip(files, digests, strict=True)}


def joined_sha256(digests: Mapping[str, str]) -> str:
    """One sha256 for a model: that of the lines `sha256  name` of its files, sorted by name."""
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def model_sha256(model_dir: Path) -> str:
    """The sha256 of a model directory."""
    return joined_sha256(file_digests(model_dir))
