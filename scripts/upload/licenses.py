"""What the donors' own files say of their licenses. What they do not say is not known here; nothing is guessed."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.upload.front_matter import read_front_matter

# The hubs' identifiers for a license that nobody stated and for one that has no identifier (or for several at once).
UNKNOWN = "unknown"
OTHER = "other"
LICENSE_FILE_PATTERNS = ("LICENSE*", "NOTICE*")

# Words of the license's own text by which it is recognised, under the hubs' identifier.
_WORDS_OF_LICENSES = {
    "apache-2.0": ("apache license version 2.0, january 2004",),
    "mit": ("permission is hereby granted, free of charge, to any person obtaining a copy of this software",),
}


@dataclass(frozen=True)
class License:
    """A license as a donor's file states it; `name` and `link` are given with `other`."""

    identifier: str
    said_by: str
    name: str | None = None
    link: str | None = None


def license_files(donor_dir: Path) -> list[Path]:
    """The license's text and notices, which have to travel with what was made from the donor."""
    return sorted({path for pattern in LICENSE_FILE_PATTERNS for path in donor_dir.glob(pattern) if path.is_file()})


def read_license(donor_dir: Path) -> License | None:
    """What README.md's front matter states, else what the text of a LICENSE is; None where neither says it."""
    return _license_of_readme(donor_dir / "README.md") or _license_of_text(donor_dir)


def _license_of_readme(path: Path) -> License | None:
    try:
        values = read_front_matter(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a donor's own page, which need not be there or well formed
        return None
    identifier = values.get("license")
    if not isinstance(identifier, str):
        return None
    name, link = values.get("license_name"), values.get("license_link")
    return License(identifier.lower(), path.name, str(name) if name else None, str(link) if link else None)


def _license_of_text(donor_dir: Path) -> License | None:
    for path in license_files(donor_dir):
        if not path.name.startswith("LICENSE"):
            continue
        words = " ".join(path.read_text(encoding="utf-8", errors="replace").lower().split())
        for identifier, texts in _WORDS_OF_LICENSES.items():
            if any(text in words for text in texts):
                return License(identifier, path.name)
        return License(OTHER, path.name)
    return None


def identifier_of_all(licenses: Sequence[License | None]) -> str:
    """One identifier for what was made from several: theirs if they agree, unknown if one is."""
    identifiers = {license.identifier if license else UNKNOWN for license in licenses}
    if UNKNOWN in identifiers:
        return UNKNOWN
    return identifiers.pop() if len(identifiers) == 1 else OTHER


def copied_name(path: Path, role: str) -> str:
    """LICENSE.vl and the like: one donor's beside the other's."""
    return f"{path.name}.{role}"


def copy_license_files(donor_dir: Path, role: str, target_dir: Path) -> None:
    """Copies a donor's license files to where the checkpoint is given away from."""
    for path in license_files(donor_dir):
        target = target_dir / copied_name(path, role)
        shutil.copyfile(path, target)
        target.chmod(0o644)
