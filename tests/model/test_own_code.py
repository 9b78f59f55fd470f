"""Code that a donor brings is a bait that writes a file when it is run: transformers would run it, this pipeline never does."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from helpers.tiny_donor_files import edit_json, write_tiny_donors
from helpers.tiny_graft import run_graft
from scripts.common.errors import UserError
from scripts.graft import check_fidelity
from scripts.graft.calibration_donor import open_donor
from scripts.graft.own_code import require_own_code
from scripts.graft.texts import load_tokenizer
from scripts.train.declarations import checked_sha256

BAIT = """
from pathlib import Path
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

Path({marker!r}).touch()

class Tokenizer(PreTrainedTokenizerFast):
    pass

class Config(PreTrainedConfig):
    model_type = "qwen3"

def generate(*args, **kwargs):
    pass
"""
TOKENIZER = {"AutoTokenizer": ["bait.Tokenizer", "bait.Tokenizer"], "AutoProcessor": "bait.Tokenizer"}
OTHERS = dict.fromkeys(
    ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoImageProcessor", "AutoVideoProcessor"), "bait.Config"
)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that appears when somebody else's code runs."""
    return tmp_path / "ran"


def lay_bait(directory: Path, marker: Path) -> None:
    """Code of its own in every file from which transformers takes some."""
    (directory / "bait.py").write_text(BAIT.format(marker=str(marker)))
    for path in directory.glob("*.json"):
        if path.name not in ("tokenizer.json", "vocab.json") and not path.name.endswith(".index.json"):
            edit_json(path, auto_map=TOKENIZER | OTHERS)


@pytest.fixture
def donors(tmp_path: Path, marker: Path) -> tuple[Path, Path]:
    donors = write_tiny_donors(tmp_path / "donors", dtype="float32")
    for donor in donors:
        lay_bait(donor, marker)
    return donors


def test_the_bait_works_where_trust_is_given(donors: tuple[Path, Path], marker: Path) -> None:
    AutoTokenizer.from_pretrained(donors[1], trust_remote_code=True)
    assert marker.exists()


def test_no_step_from_the_donors_to_a_proven_graft_runs_their_code(
    root: Path, donors: tuple[Path, Path], marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_tokenizer(donors[1])
    open_donor(donors[1])
    graft_dir = run_graft(root, donors, tmp_path / "graft")
    require_own_code(graft_dir)
    (tmp_path / "text.txt").write_text("A text.\n\nAnother, which is longer.")
    settings = json.dumps({"text": str(tmp_path / "text.txt"), "dtype": "float32", "max_tokens": 64})
    argv = ["check_fidelity", "--graft-dir", str(graft_dir), "--llm-dir", str(donors[1]), "--settings", settings]
    monkeypatch.setattr(sys, "argv", [*argv, "--output", str(tmp_path / "fidelity.json")])
    check_fidelity.main()
    assert json.loads((tmp_path / "fidelity.json").read_text())["bit_equal"] is True
    assert not marker.exists()


def add_generate(graft_dir: Path, marker: Path) -> None:
    (graft_dir / "custom_generate").mkdir()
    (graft_dir / "custom_generate/generate.py").write_text(BAIT.format(marker=str(marker)))


def edit_our_file(graft_dir: Path, marker: Path) -> None:
    path = graft_dir / "modeling_qwen2_5_vl_qwen3.py"
    path.write_text(f"open({str(marker)!r}, 'w').close()\n" + path.read_text())


@pytest.mark.parametrize("lay", [lay_bait, add_generate, edit_our_file])
def test_code_that_came_into_a_graft_later_is_refused_before_it_is_loaded(
    root: Path, tmp_path: Path, marker: Path, lay: Callable[[Path, Path], None]
) -> None:
    donors = write_tiny_donors(tmp_path / "clean", dtype="float32")
    graft_dir = run_graft(root, donors, tmp_path / "graft")
    load_tokenizer(graft_dir)
    lay(graft_dir, marker)
    for use in (require_own_code, checked_sha256):
        with pytest.raises(UserError):
            use(graft_dir)
    shutil.rmtree(graft_dir)
    assert not marker.exists()
