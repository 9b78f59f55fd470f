"""The ledger has one row for each tensor, is read as it was written, and is summed by policy and donor."""

import hashlib
import math
from pathlib import Path

import pytest

from helpers.tiny_donor_files import write_tiny_donors
from helpers.tiny_graft import read_bytes, run_graft
from scripts.common.errors import UserError
from scripts.graft.ledger import LedgerRow, LedgerSum, ledger_text, read_ledger, sum_ledger

ROWS = [
    LedgerRow("a", "llm", "copied", "a", "BF16", "2x3", 12, "ab", "model.safetensors", "model-1.safetensors", "kept"),
    LedgerRow("b", "vl", "dropped", "", "BF16", "4", 8, "cd", "model.safetensors", "", "too wide; replaced"),
    LedgerRow("c", "", "initialised", "c", "BF16", "4", 8, "ef", "", "model-1.safetensors", "too wide; all 0"),
    LedgerRow("d", "llm", "copied", "d", "BF16", "1", 2, "01", "model.safetensors", "model-1.safetensors", "kept"),
]


def test_a_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.tsv"
    path.write_text(ledger_text(ROWS))
    assert read_ledger(path) == ROWS
    assert path.read_text().splitlines()[0] == (
        "name\tdonor\tpolicy\toutput_name\tdtype\tshape\tbytes\tsha256\tdonor_file\toutput_file\treason"
    )


def test_the_sums_list_what_was_kept_first() -> None:
    assert sum_ledger(ROWS) == [
        LedgerSum("copied", "llm", 2, 14, ["kept"]),
        LedgerSum("initialised", "", 1, 8, ["too wide"]),
        LedgerSum("dropped", "vl", 1, 8, ["too wide"]),
    ]


@pytest.mark.parametrize(
    ("found", "wrong", "message"),
    [
        ("copied", "lost", "row 2: policy is 'lost'; expected one of copied, refitted, initialised, dropped"),
        ("\tllm\t", "\tllama\t", "row 2: donor is 'llama'; expected vl, llm or nothing"),
        ("\t12\t", "\ttwelve\t", "row 2: bytes is 'twelve'; expected a number"),
        ("sha256", "md5", "no column `sha256` found"),
    ],
)
def test_a_ledger_of_another_form_is_refused_with_the_row(tmp_path: Path, found: str, wrong: str, message: str) -> None:
    path = tmp_path / "ledger.tsv"
    path.write_text(ledger_text(ROWS).replace(found, wrong))
    with pytest.raises(UserError) as refusal:
        read_ledger(path)
    assert message in str(refusal.value)


def test_a_ledger_without_a_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.tsv"
    path.write_text(ledger_text([]))
    with pytest.raises(UserError, match="no tensor found below the header"):
        read_ledger(path)


@pytest.mark.parametrize("architecture", ["qwen3", "qwen2_5_vl"])
def test_the_ledger_accounts_once_for_every_tensor_of_both_donors_and_of_the_result(
    root: Path, tmp_path: Path, architecture: str
) -> None:
    donors = write_tiny_donors(tmp_path)
    graft_dir = run_graft(root, donors, tmp_path / "graft", architecture=architecture, aligner="keep")
    rows = read_ledger(graft_dir / "ledger.tsv")
    blobs = {"vl": read_bytes(donors[0]), "llm": read_bytes(donors[1])}
    result = read_bytes(graft_dir)
    for donor, tensors in blobs.items():
        assert sorted(row.name for row in rows if row.donor == donor) == sorted(tensors)
    assert sorted(row.output_name for row in rows if row.output_name) == sorted(result)
    for row in rows:
        blob = blobs[row.donor][row.name] if row.donor else result[row.output_name]
        assert row.sha256 == hashlib.sha256(blob).hexdigest()
        assert row.bytes == len(blob)
        assert math.prod(map(int, row.shape.split("x"))) * 2 == len(blob)
        assert bool(row.output_name) == (row.policy != "dropped")
        assert (row.policy == "initialised") == (row.donor == "")
        assert row.reason
        if row.policy == "copied":
            assert result[row.output_name] == blob
