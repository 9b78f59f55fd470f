"""A donor's manifest (resources/donors/NAME.json): its source and, of each of its files, size, time and checksums."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from scripts.common.errors import UserError
from scripts.common.reading import read_sealed, write_sealed
from scripts.donors.settings import DonorSource

# vl: the vision donor; llm: the language donor.
Role = Literal["vl", "llm"]


@dataclass(frozen=True)
class FileRecord:
    """One file as it was when it was recorded; `tensors` are the sha256 of each tensor of a safetensors file."""

    name: str
    num_bytes: int
    modified_ns: int
    sha256: str
    tensors: dict[str, str] | None = None


@dataclass(frozen=True)
class DonorManifest:
    """One donor: written last, so that without a manifest there is no donor."""

    role: Role
    source: DonorSource
    dir: str
    files: list[FileRecord]

    @property
    def name(self) -> str:
        """The hub's id, or the name of the directory."""
        return self.source.id or Path(self.source.path or self.dir).name

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)


def write_manifest(path: Path, manifest: DonorManifest) -> None:
    """Writes the manifest whole or not at all, without the keys that are not set."""
    files = [{key: value for key, value in asdict(file).items() if value is not None} for file in manifest.files]
    write_sealed(path, asdict(manifest) | {"source": manifest.source.section(), "files": files})


def read_manifest(path: Path) -> DonorManifest:
    """The manifest as it was written; UserError where the file was edited since."""
    return read_sealed(DonorManifest, path)


def read_manifest_of(role: str, path: Path) -> DonorManifest:
    """The same; UserError where it is of the other donor."""
    manifest = read_manifest(path)
    if manifest.role != role:
        raise UserError(f"{path}: role {manifest.role} found; expected {role}; record the donor again")
    return manifest
