"""The licenses that the donors' own files state; where they state none it stays unknown."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import temporary_for
from scripts.common.input_files import read_input_text
from scripts.upload.front_matter import read_front_matter

# The hubs' identifiers for a license that is not stated, and for one without identifier or several at once.
UNKNOWN = "unknown"
OTHER = "other"
LICENSE_FILE_PATTERNS = ("LICENSE*", "NOTICE*")

# Words by which the text of a license is recognised, by the hubs' identifier.
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
    """License texts and notices, which must go with whatever is made from the donor."""
    return sorted({path for pattern in LICENSE_FILE_PATTERNS for path in donor_dir.glob(pattern) if path.is_file()})


def read_license(donor_dir: Path) -> License | None:
    """The license that README.md's front matter states, else the one whose text LICENSE holds; None where neither does."""
    return _license_of_readme(donor_dir / "README.md") or _license_of_text(donor_dir)


def _license_of_readme(path: Path) -> License | None:
    try:
        values = read_front_matter(read_input_text(path, "a model's page", "write one"))
    except (UserError, ValueError):  # a donor's own page, which need not be there or well formed
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
    """The identifier for what was made from several: theirs if they agree, unknown if one is, else other."""
    identifiers = {license.identifier if license else UNKNOWN for license in licenses}
    if UNKNOWN in identifiers:
        return UNKNOWN
    return identifiers.pop() if len(identifiers) == 1 else OTHER


def copied_name(path: Path, role: str) -> str:
    """Its name beside the card: LICENSE.vl, NOTICE.llm."""
    return f"{path.name}.{role}"


def copy_license_files(donor_dir: Path, role: str, target_dir: Path) -> None:
    """Copies a donor's license files beside the card."""
    for path in license_files(donor_dir):
        # Over whatever has that name, never through a link of that name.
        with temporary_for(target_dir / copied_name(path, role)) as temporary:
            shutil.copyfile(path, temporary)
            temporary.chmod(0o644)
