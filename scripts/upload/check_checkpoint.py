"""Checks that a checkpoint directory can be uploaded as it stands: whole, clean, and usable without this repository.

First from the files: all that a hub and transformers need is there, README.md's front matter can be read, shards and index
agree, all may read every file, nothing is left of training, no small file holds a path of a machine or a secret. The bytes are
those that the stage's metrics.json declares. No JSON file names code but our own two files, and no other code or pickle is
there.
Then a new interpreter of --python, isolated (-I) in an empty directory, with caches of its own and offline, loads the model, with
`trust_remote_code` only where config.json names code, and answers a question about a picture (load_checkpoint.py). The first
fault ends the check with one message. This needs the memory of the model in its own dtype.

By hand: .venv/bin/python scripts upload.check_checkpoint --config config/demo.yaml --stage stage2
For any directory:
  .venv/bin/python scripts upload.check_checkpoint --checkpoint-dir results/demo/stage2/checkpoint \
    --python .venvs/train/bin/python --output check.json
"""

import argparse
import json
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.common import units
from scripts.common.errors import UserError, run_program
from scripts.common.files import sha256_of_file, write_json_atomically
from scripts.common.input_files import read_json, read_section
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.reading import read_sealed
from scripts.common.root import ROOT
from scripts.common.secret_values import leaves, secret_keys, without_tokens
from scripts.donors.safetensors_files import INDEX_NAME, SINGLE_NAME, read_checkpoint
from scripts.graft.machine_paths import is_searched, path_in
from scripts.graft.own_code import CODE_DIR, CODE_FILES
from scripts.train.declarations import checked_sha256
from scripts.train.exit_status import ending
from scripts.train.metrics import METRICS_NAME, Metrics, require_settings_unedited
from scripts.train.settings import SETTINGS_NAME
from scripts.upload.front_matter import read_front_matter

LOADER = ROOT / "scripts" / "upload" / "load_checkpoint.py"

# Any one of each is enough.
NEEDED_FILES = (
    ("README.md",),
    ("config.json",),
    ("generation_config.json",),
    (INDEX_NAME, SINGLE_NAME),
    ("tokenizer_config.json",),
    ("tokenizer.json", "vocab.json"),
    ("preprocessor_config.json", "processor_config.json"),
    ("chat_template.jinja", "chat_template.json"),
)
NEEDED_KEYS = ("license", "library_name", "pipeline_tag")

# What trainers (ms-swift, transformers, DeepSpeed, PEFT) and programs leave beside weights.
LEFTOVERS = (
    "optimizer*", "scheduler*", "scaler*", "rng_state*", "trainer_state.json", "training_args.bin", "args.json",
    "global_step*", "latest", "zero_to_fp32.py", "complete.json", "*.pt", "*.pth", "*.log", "*.tmp", "*.lock", "events.out.*",
    "__pycache__", ".*",
)  # fmt: skip

# Names of files that are code, or that run code when they are loaded as weights (pickles).
CODE_PATTERNS = ("*.py", "*.pyc", "*.so", "*.bin", "*.pkl", "*.pickle", "*.ckpt", "*.pt", "*.pth", "*.joblib", "*.h5")

# Hidden files that belong there: what git and the hubs keep beside a repository's files.
HIDDEN_FILES_OF_HUBS = frozenset({".gitattributes", ".gitignore", ".git", ".cache"})

MAX_REASON_CHARACTERS = 600


def check_files(directory: Path) -> None:
    """Raises UserError when a file that a hub or a reader needs is not there."""
    if not directory.is_dir():
        raise UserError(f"{directory}: not found; expected a checkpoint directory; check --checkpoint-dir")
    for names in NEEDED_FILES:
        if not any((directory / name).is_file() for name in names):
            remedy = "make the model card" if names == ("README.md",) else "export the checkpoint again"
            raise UserError(f"{directory / names[0]}: not found; an upload needs {' or '.join(names)}; {remedy}")
    config_path = directory / "config.json"
    named = leaves(read_section(config_path).get("auto_map", {}))
    for reference in (text for _, text in named if isinstance(text, str)):
        if "--" in reference:
            raise UserError(
                f"{config_path}: auto_map names {reference!r}, code of another repository; expected code in this directory; "
                "copy it here and name it without the part before --"
            )
        code_path = directory / f"{reference.partition('.')[0]}.py"
        if not code_path.is_file():
            raise UserError(
                f"{code_path}: not found, though config.json's auto_map names it; nobody could load this; export the "
                "checkpoint again"
            )


def check_no_leftovers(directory: Path) -> None:
    """Raises UserError when a file is there that belongs to a training and not to the model."""
    for path in sorted(directory.iterdir()):
        if path.name not in HIDDEN_FILES_OF_HUBS and any(path.match(pattern) for pattern in LEFTOVERS):
            raise UserError(
                f"{path}: left by a training or another program; expected nothing but the model in an upload; remove it"
            )


def check_no_other_code(directory: Path) -> None:
    """Raises UserError when a file is there, at any depth, that is code or a pickle and not one of our own two."""
    for pattern in CODE_PATTERNS:
        for path in sorted(directory.rglob(pattern)):
            is_of_hub = path.relative_to(directory).parts[0] in HIDDEN_FILES_OF_HUBS
            if not is_of_hub and path.relative_to(directory).as_posix() not in CODE_FILES:
                raise UserError(
                    f"{path}: code, or a file that may run code when it is loaded; expected none in an upload but "
                    f"{' and '.join(CODE_FILES)}; remove it"
                )


def check_modes(directory: Path) -> None:
    """Raises UserError when a file is not readable by all (0644)."""
    for path in sorted(directory.iterdir()):
        if not path.is_file():
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o444 != 0o444:
            raise UserError(f"{path}: mode {mode:04o} found; expected 0644, readable by all; chmod 0644 it")


def check_no_local_paths(directory: Path) -> None:
    """Raises UserError when a small file names a path of a machine."""
    for path in sorted(directory.iterdir()):
        if not path.is_file() or not is_searched(path.name, path.stat().st_size):
            continue
        if found := path_in(str(path), path.read_bytes()):
            raise UserError(
                f"{path}: {found}; expected none in an upload; remove it there, or at the donor that it came from"
            )


def check_no_secrets(directory: Path) -> None:
    """Raises UserError when a small file holds a key, a token or a password, as results of an earlier version may."""
    for path in sorted(directory.iterdir()):
        if not path.is_file() or not is_searched(path.name, path.stat().st_size):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        keys = list(secret_keys(read_json(path))) if path.name == SETTINGS_NAME else []
        if keys or without_tokens(text) != text:
            what = keys[0] if keys else "it"
            raise UserError(
                f"{path}: {what} holds a secret (a key, a token, or an address with a password); expected none in an upload; "
                "remove it there, and revoke it where somebody may have read it"
            )


def check_settings_unedited(directory: Path) -> None:
    """Raises UserError where settings.json, which is no part of the model, is not the one that the stage's metrics declare."""
    settings_path, metrics_path = directory / SETTINGS_NAME, directory.parent / METRICS_NAME
    if settings_path.exists() and metrics_path.exists():
        require_settings_unedited(settings_path, read_sealed(Metrics, metrics_path, takes_nan=True), metrics_path)


def check_card(directory: Path) -> dict[str, Any]:
    """README.md's front matter; raises UserError when a hub could not read it."""
    path = directory / "README.md"
    try:
        values = read_front_matter(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path}: no front matter that a hub could read ({error}); expected YAML between two lines of ---; make the "
            "model card again"
        ) from None
    for key in NEEDED_KEYS:
        if not values.get(key):
            raise UserError(
                f"{path}: no {key} in its front matter; expected {', '.join(NEEDED_KEYS)}; make the card again"
            )
    return values


def isolated_environment(inherited: Mapping[str, str], directory: Path, empty_dir: Path) -> dict[str, str]:
    """The inherited variables without those of Python and the hubs' libraries; with empty caches, and offline.

    An interpreter inside an image (scripts/environments/enter_image.py) sees the checkpoint's directory as well.
    """
    foreign = ("PYTHON", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "MODELSCOPE_")
    kept = {name: value for name, value in inherited.items() if not name.startswith(foreign)}
    own = {"HF_HOME": str(empty_dir / "home"), "HF_MODULES_CACHE": str(empty_dir / "modules")}
    own["APPTAINER_BIND"] = ",".join(filter(None, [inherited.get("APPTAINER_BIND"), str(directory.resolve())]))
    return kept | own | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def failure_reason(lines: Sequence[str]) -> str:
    """The exception at the end of a traceback, with the rest of its message; else the last line."""
    filled = [line for line in lines if line.strip()]
    starts = [number for number, line in enumerate(filled) if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
    return " ".join(" ".join(filled[starts[-1] if starts else -1 :]).split())[:MAX_REASON_CHARACTERS] if filled else ""


def load_alone(directory: Path, python: Path) -> dict[str, Any]:
    """Loads the checkpoint where nothing of this repository is; raises UserError with the reason when that fails."""
    with tempfile.TemporaryDirectory(prefix="vlgraft-check-") as temporary:
        try:
            finished = subprocess.run(
                [python.absolute(), "-I", LOADER, directory.resolve(), ROOT],
                cwd=temporary,
                env=isolated_environment(os.environ, directory, Path(temporary)),
                capture_output=True,
                text=True,
            )
        except OSError as error:
            raise UserError(
                f"{python}: cannot be started ({error.strerror}); expected Python with transformers"
            ) from None
    if finished.returncode:
        how = ending(finished.returncode)
        reason = failure_reason(finished.stderr.splitlines()) or "no output; perhaps out of memory"
        raise UserError(
            f"{directory}: cannot be used by {python} with nothing of this repository ({how}): {reason}; expected it to load and "
            "to answer; export the checkpoint again"
        )
    found: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    if "fault" in found:
        raise UserError(f"{directory}: {found['fault']}; export the checkpoint again")
    return found


def check(directory: Path, python: Path) -> dict[str, Any]:
    """Runs all checks and returns what was found. Raises UserError with the first fault."""
    check_files(directory)
    check_no_leftovers(directory)
    check_modes(directory)
    check_no_local_paths(directory)
    check_no_secrets(directory)
    card = check_card(directory)
    check_no_other_code(directory)
    sha256 = checked_sha256(directory)
    check_settings_unedited(directory)
    tensors = read_checkpoint(directory)
    loaded = load_alone(directory, python)
    files = {path.name: path.stat().st_size for path in sorted(directory.iterdir()) if path.is_file()}
    own_code = {name: sha256_of_file(CODE_DIR / name) for name in CODE_FILES}
    if foreign := {name: found for name, found in loaded["code"].items() if found != own_code.get(name)}:
        name, found = next(iter(foreign.items()))
        raise UserError(
            f"{directory}: loading it ran {name} with sha256 {found}; expected none but {' and '.join(CODE_FILES)} of "
            f"{CODE_DIR}; export the checkpoint again"
        )
    return {
        "sha256": sha256,
        "json_without_foreign_code": [name for name in files if name.endswith(".json")],
        "license": card["license"],
        "num_files": len(files),
        "num_bytes": sum(files.values()),
        "num_tensors": len(tensors),
        **loaded,
        "files": files,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint-dir", required=True, type=Path)
    parser.add_argument("--python", required=True, type=Path, help="of an environment with transformers and torch")
    parser.add_argument("--output", required=True, type=Path, help="JSON: what was found")
    arguments = parser.parse_args()
    with owned(arguments.output, inputs=[arguments.checkpoint_dir]):
        found = check(arguments.checkpoint_dir, arguments.python)
        write_json_atomically(arguments.output, found)
        log(
            f"{arguments.checkpoint_dir}: {found['num_files']} files, {units.size(found['num_bytes'])}, ready to be uploaded; "
            f"{found['model']} with code of {found['code_from']} answered a picture; license: {found['license']}"
        )


if __name__ == "__main__":
    run_program(main)
