"""The pages name files and functions that are there."""

import re
from pathlib import Path

import pytest

PAGES = sorted(
    path.relative_to(Path(__file__).resolve().parents[3]).as_posix()
    for pattern in ("README.md", "docs/*.md", "config/README.md", "study/README.md")
    for path in Path(__file__).resolve().parents[3].glob(pattern)
    if path.name != "log.md"  # what was written on a day names what was there then
)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_files_that_exist(root: Path, page: str) -> None:
    text = (root / page).read_text(encoding="utf-8")
    named = re.findall(
        r"\b((?:scripts|rules|tests|benchmarks|config|study|model|envs|slurm|texts)/[\w/.-]+\.\w+)", text
    )
    assert [path for path in named if "/X" not in path and not (root / path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_programs_that_exist(root: Path, page: str) -> None:
    text = (root / page).read_text(encoding="utf-8")
    named = re.findall(r"python scripts (\w+\.\w+)", text)
    assert [name for name in named if not (root / "scripts" / f"{name.replace('.', '/')}.py").exists()] == []
