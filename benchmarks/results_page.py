"""A page of results with a section for each pair of donors."""

from pathlib import Path


def write_section(path: Path, title: str, section: str) -> None:
    """Puts a pair's section in the place of its earlier one, or behind the others."""
    pair = section.partition(",")[0]
    earlier = path.read_text(encoding="utf-8").split("\n## ")[1:] if path.exists() else []
    kept = [f"## {text.rstrip()}" for text in earlier if f"## {text}".partition(",")[0] != pair]
    path.write_text("\n\n".join([title, *kept, section]) + "\n", encoding="utf-8")
