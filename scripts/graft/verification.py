"""Compares a graft on the disk with its ledger, tensor by tensor, and with what was proven of it.

The ledger's sha256 of a copied tensor is that of the donor's manifest: grafting reads none of the 16 GB that it copies or
links. So before a graft is proven, trained on, served or scored, its bytes are read back and compared here.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import sha256_of_file
from scripts.donors.model_files import NUM_READERS, joined_sha256
from scripts.donors.safetensors_files import TensorOnDisk, read_checkpoint
from scripts.graft.fidelity import FIDELITY_NAME, Fidelity, read_fidelity
from scripts.graft.ledger import LEDGER_NAME, LedgerRow, read_ledger, shape_text

_BLOCK_BYTES = 1 << 20


def tensor_sha256(tensor: TensorOnDisk) -> str:
    """sha256 of a tensor's bytes on the disk."""
    digest, num_left = hashlib.sha256(), tensor.num_bytes
    with open(tensor.path, "rb") as file:
        file.seek(tensor.offset)
        while block := file.read(min(_BLOCK_BYTES, num_left)):
            digest.update(block)
            num_left -= len(block)
    return digest.hexdigest()


def check_ledger(graft_dir: Path) -> None:
    """Raises UserError unless the graft's tensors are exactly those of its ledger, byte for byte."""
    path = graft_dir / LEDGER_NAME
    remedy = (
        "if its donor is damaged too (a linked shard is the donor's own file), fetch the donor again; then remove the ledger "
        "and graft again"
    )
    rows = {row.output_name: row for row in read_ledger(path) if row.output_name}
    tensors = read_checkpoint(graft_dir)
    for name in sorted(rows.keys() ^ tensors.keys()):
        where = "in the ledger, not in the graft" if name in rows else "in the graft, not in the ledger"
        raise UserError(
            f"{path}: tensor {name} is {where}; expected the same in both; remove the ledger and graft again"
        )
    with ThreadPoolExecutor(NUM_READERS) as pool:
        digests = dict(zip(tensors, pool.map(tensor_sha256, tensors.values()), strict=True))
    for name, row in rows.items():
        tensor = tensors[name]
        found = (tensor.dtype, shape_text(tensor.shape), digests[name])
        if found != (row.dtype, row.shape, row.sha256):
            raise UserError(
                f"{tensor.path}: tensor {name} is {found[1]} of {found[0]} with sha256 {found[2]}; {path} declares "
                f"{row.shape} of {row.dtype} with sha256 {row.sha256}; {remedy}"
            )


def check_graft(graft_dir: Path, digests: Mapping[str, str]) -> None:
    """Raises UserError unless a graft is what its ledger declares and, once it was proven, what was proven.

    `digests` are the sha256 of its files; fidelity.json holds those of the small ones too, which the ledger does not know.
    Of a proven graft whose files are the proven ones no tensor is read again: the proof has compared each with the ledger.
    """
    fidelity_path, ledger_path = graft_dir / FIDELITY_NAME, graft_dir / LEDGER_NAME
    if not fidelity_path.exists():
        check_ledger(graft_dir)
        return
    fidelity, found = read_fidelity(fidelity_path), joined_sha256(digests)
    if (fidelity.ledger_sha256, fidelity.graft_sha256) == (sha256_of_file(ledger_path), found):
        return
    check_ledger(graft_dir)  # names the tensor, where one is to blame
    check_is_of_ledger(fidelity.ledger_sha256, fidelity_path, ledger_path)
    raise UserError(
        f"{graft_dir}: sha256 {found} found over its files, {fidelity.graft_sha256} expected, that of the graft which "
        f"{fidelity_path} is about; a file was changed, added or removed since; remove {LEDGER_NAME} and graft again"
    )


def read_proven(fidelity_path: Path, ledger_path: Path) -> tuple[Fidelity, list[LedgerRow]]:
    """Both records of a graft; raises UserError where one was edited, or they are of two grafts."""
    rows, fidelity = read_ledger(ledger_path), read_fidelity(fidelity_path)
    check_is_of_ledger(fidelity.ledger_sha256, fidelity_path, ledger_path)
    return fidelity, rows


def check_is_of_ledger(ledger_sha256: str, fidelity_path: Path, ledger_path: Path) -> None:
    """Raises UserError where fidelity.json is about a graft with another ledger, or the ledger was edited since."""
    if (found := sha256_of_file(ledger_path)) != ledger_sha256:
        raise UserError(
            f"{ledger_path}: sha256 {found} found, {ledger_sha256} expected by {fidelity_path}: it was edited since, or that "
            "file is about another graft; bring the ledger back, or remove both and make them again (graft, fidelity)"
        )
