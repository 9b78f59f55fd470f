"""What a release has to agree on."""

import re
import subprocess
from datetime import date
from pathlib import Path

import yaml


def test_the_newest_version_of_the_changelog_is_the_one_that_is_cited(root: Path) -> None:
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.search(r"^## (\S+) \((\S+)\)$", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest.groups() == (citation["version"], str(citation["date-released"]))
    assert date.fromisoformat(newest.group(2)) <= date.today()


def test_the_workflow_catalog_finds_what_it_needs(root: Path) -> None:
    usage = yaml.safe_load((root / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))["usage"]
    assert usage["report"] is True
    assert (root / "Snakefile").exists() and (root / "config/README.md").exists()


def test_every_link_between_pages_leads_somewhere(root: Path) -> None:
    pages = [root / "README.md", root / "CHANGELOG.md", *root.glob("docs/*.md"), *root.glob("*/README.md")]
    dead = [
        f"{page.relative_to(root)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert dead == []


def reachable(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Every pair of steps of which the second follows the first, directly or not."""
    pairs = set(edges)
    while more := {(a, d) for a, b in pairs for c, d in edges if b == c} - pairs:
        pairs |= more
    return pairs


def test_the_picture_of_the_steps_is_the_workflows_own_graph(root: Path) -> None:
    """`make docs/steps.svg` draws it anew; arrows that others imply are left out."""
    command = [root / ".venv/bin/snakemake", "--rulegraph", "dot", "--configfile", "config.yaml"]
    graph = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    names = dict(re.findall(r'(\d+)\[label = "([^"]+)"', graph))
    edges = {(names[a], names[b]) for a, b in re.findall(r"(\d+) -> (\d+)", graph)}
    picture = (root / "docs/steps.svg").read_text(encoding="utf-8")
    drawn = re.findall(r"<title>(\d+)</title>.*?<text[^>]*>([^<]+)</text>", picture, re.DOTALL)
    drawn_names = dict(drawn)
    drawn_edges = re.findall(r"<title>(\d+)&#45;&gt;(\d+)</title>", picture)
    assert sorted(drawn_names.values()) == sorted(names.values())
    assert reachable({(drawn_names[a], drawn_names[b]) for a, b in drawn_edges}) == reachable(edges)
