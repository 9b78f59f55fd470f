"""The marker of a whole environment: the sha256 of each lock that it was built from, as `sha256sum` prints them."""

from collections.abc import Sequence
from pathlib import Path

from scripts.common.files import sha256_of_file
from scripts.common.root import ROOT


def _from_root(path: Path) -> Path:
    """The same name wherever the build was started from, because what was made with an environment depends on its marker."""
    return path.resolve().relative_to(ROOT) if path.resolve().is_relative_to(ROOT) else path


def marker_text(lock_paths: Sequence[Path]) -> str:
    return "".join(f"{sha256_of_file(path)}  {_from_root(path)}\n" for path in lock_paths)


def sums_in(marker_path: Path) -> list[str]:
    """The sums of a marker; none where there is no marker."""
    try:
        lines = marker_path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line.split()[0] for line in lines if line.strip()]


def is_of(marker_path: Path, lock_paths: Sequence[Path]) -> bool:
    """Whether the environment was built from locks of this content, whatever their names and dates."""
    return sums_in(marker_path) == [sha256_of_file(path) for path in lock_paths]


def is_outdated(marker_path: Path, lock_paths: Sequence[Path]) -> bool:
    """Whether there is a marker `DIR.ok`, but of other locks, or without its environment."""
    is_whole = (marker_path.with_suffix("") / "bin").exists()
    return marker_path.exists() and not (is_whole and is_of(marker_path, lock_paths))
