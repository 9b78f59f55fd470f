"""What takes minutes to make is kept from one session of tests to the next, under the sha256 of all that made it."""

import contextlib
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

# Nothing below these changes what a program makes.
WITHOUT_INFLUENCE = ("tests/", "docs/", "benchmarks/", "study/", ".ci/")


def files_of_tree(root: Path) -> list[str]:
    """The files that git tracks or would track, as far as they are there."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    # A tracked file that was deleted stays listed until it is committed.
    return sorted(name for name in filter(None, listed.split("\0")) if (root / name).is_file())


def key_of_tree(root: Path, *also: str) -> str:
    """Another one as soon as a program, a rule, a setting or a lock is another, or one of the files `also`."""
    digest = hashlib.sha256()
    for name in files_of_tree(root):
        if name in also or not name.startswith(WITHOUT_INFLUENCE):
            digest.update(f"{name} {hashlib.sha256((root / name).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def keep(source_dir: Path, names: Sequence[str], kept_dir: Path) -> None:
    """Copies some files and directories, links as links; `kept_dir` appears whole, by the first session that comes to it.

    Of the kept ones whose name differs after the last hyphen (the key) none is needed any more.
    """
    kept_dir.parent.mkdir(parents=True, exist_ok=True)
    for other_dir in set(kept_dir.parent.glob(f"{kept_dir.name.rpartition('-')[0]}-*")) - {kept_dir}:
        shutil.rmtree(other_dir)
    partial_dir = Path(tempfile.mkdtemp(prefix="partial-", dir=kept_dir.parent))
    for name in names:
        (partial_dir / name).parent.mkdir(parents=True, exist_ok=True)
        if (source_dir / name).is_dir() and not (source_dir / name).is_symlink():
            shutil.copytree(source_dir / name, partial_dir / name, symlinks=True)
        else:
            shutil.copy2(source_dir / name, partial_dir / name, follow_symlinks=False)
    with contextlib.suppress(OSError):  # another one was faster
        partial_dir.rename(kept_dir)
    shutil.rmtree(partial_dir, ignore_errors=True)
