"""A graft on the disk is its ledger's, tensor by tensor; and once it was proven, it is the graft that was proven."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.report_inputs import FIDELITY, sealed
from helpers.tiny_donor_files import write_tiny_donors
from helpers.tiny_graft import run_graft
from scripts.common.errors import UserError
from scripts.common.files import sha256_of_file
from scripts.donors.model_files import file_digests, model_sha256
from scripts.donors.safetensors_files import read_checkpoint
from scripts.graft.verification import check_graft, check_ledger, read_proven


@pytest.fixture
def donors(tmp_path: Path) -> tuple[Path, Path]:
    return write_tiny_donors(tmp_path / "donors")


@pytest.fixture
def graft_dir(root: Path, donors: tuple[Path, Path], tmp_path: Path) -> Path:
    return run_graft(root, donors, tmp_path / "graft")


def flip_a_bit(path: Path, offset: int) -> None:
    """One bit, and the time of change as it was: nothing but the bytes tells."""
    content, before = bytearray(path.read_bytes()), path.stat().st_mtime_ns
    content[offset] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before, before))


def prove(graft_dir: Path, **changes: str) -> Path:
    """fidelity.json of the graft as it is, in all that identifies it."""
    path = graft_dir / "fidelity.json"
    identity = {"graft_sha256": model_sha256(graft_dir), "ledger_sha256": sha256_of_file(graft_dir / "ledger.tsv")}
    path.write_text(json.dumps(sealed(FIDELITY | identity | changes)))
    return path


def check(graft_dir: Path) -> None:
    check_graft(graft_dir, file_digests(graft_dir))


@pytest.mark.parametrize("place", ["first", "last"])
def test_one_flipped_bit_of_any_tensor_is_found_and_the_tensor_named(graft_dir: Path, place: str) -> None:
    check_ledger(graft_dir)
    for name, tensor in read_checkpoint(graft_dir).items():
        offset = tensor.offset if place == "first" else tensor.offset + tensor.num_bytes - 1
        flip_a_bit(tensor.path, offset)
        with pytest.raises(UserError) as caught:
            check_ledger(graft_dir)
        message = str(caught.value)
        with open(tensor.path, "rb") as file:
            file.seek(tensor.offset)
            found = hashlib.sha256(file.read(tensor.num_bytes)).hexdigest()
        assert message.startswith(f"{tensor.path}: tensor {name} is ")
        assert f"with sha256 {found}; {graft_dir / 'ledger.tsv'} declares " in message
        assert "graft again" in message
        flip_a_bit(tensor.path, offset)
    check_ledger(graft_dir)


def test_a_linked_donor_that_changed_without_its_time_is_found_in_the_graft(
    graft_dir: Path, donors: tuple[Path, Path]
) -> None:
    tensor = read_checkpoint(donors[1])["model.norm.weight"]
    flip_a_bit(tensor.path, tensor.offset)  # the graft's file is the donor's own
    with pytest.raises(UserError, match=r"tensor model\.norm\.weight is .*fetch the donor again"):
        check_ledger(graft_dir)


def test_an_edited_row_and_one_that_is_missing_or_too_much_are_found(graft_dir: Path) -> None:
    path = graft_dir / "ledger.tsv"
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    row = next(line for line in lines if "\tmodel.norm.weight\t" in line)
    digest = row.split("\t")[7]
    path.write_text(text.replace(digest, "0" * 64))
    with pytest.raises(UserError, match=r"with sha256 0{64}"):
        check_ledger(graft_dir)
    path.write_text(text.replace(row, ""))
    with pytest.raises(UserError, match=r"tensor model\.norm\.weight is in the graft, not in the ledger"):
        check_ledger(graft_dir)
    path.write_text(text + row.replace("\tmodel.norm.weight\t", "\tmodel.more.weight\t"))
    with pytest.raises(UserError, match=r"tensor model\.more\.weight is in the ledger, not in the graft"):
        check_ledger(graft_dir)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda directory: (directory / "chat_template.jinja").write_text("another"),
        lambda directory: (directory / "tokenizer.json").unlink(),
        lambda directory: (directory / "added.json").write_text("{}"),
        lambda directory: (directory / "config.json").write_bytes((directory / "config.json").read_bytes() + b" "),
    ],
)
def test_a_small_file_that_changed_after_the_proof_is_found(graft_dir: Path, spoil: Callable[[Path], None]) -> None:
    prove(graft_dir)
    check(graft_dir)
    proven = model_sha256(graft_dir)
    spoil(graft_dir)
    with pytest.raises(UserError) as caught:
        check(graft_dir)
    assert str(caught.value).startswith(
        f"{graft_dir}: sha256 {model_sha256(graft_dir)} found over its files, {proven} expected"
    )


def test_a_graft_that_was_not_proven_is_compared_with_its_ledger(graft_dir: Path) -> None:
    check(graft_dir)
    flip_a_bit(next(graft_dir.glob("*.safetensors")), -1)
    with pytest.raises(UserError, match=r"tensor .* with sha256"):
        check(graft_dir)


def test_no_tensor_of_a_proven_graft_is_read_a_second_time(graft_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prove(graft_dir)
    monkeypatch.setattr("scripts.graft.verification.tensor_sha256", lambda tensor: pytest.fail("it was read again"))
    check(graft_dir)


def test_a_ledger_and_a_proof_of_another_graft_are_refused(graft_dir: Path) -> None:
    path = prove(graft_dir, ledger_sha256="0" * 64)
    ledger_path = graft_dir / "ledger.tsv"
    message = rf"{ledger_path}: sha256 \w{{64}} found, 0{{64}} expected by {path}"
    with pytest.raises(UserError, match=message):
        check(graft_dir)
    with pytest.raises(UserError, match=message):
        read_proven(path, ledger_path)
    prove(graft_dir)
    assert read_proven(path, ledger_path)[0].ledger_sha256 == sha256_of_file(ledger_path)
    ledger_path.write_text(ledger_path.read_text().replace("the language donor\n", "the donor\n"))  # a reason alone
    with pytest.raises(UserError, match="it was edited since"):
        read_proven(path, ledger_path)


def test_a_new_graft_takes_the_proof_of_the_earlier_one_away(
    root: Path, donors: tuple[Path, Path], graft_dir: Path
) -> None:
    path = prove(graft_dir)
    run_graft(root, donors, graft_dir)
    assert not path.exists()
    check(graft_dir)
