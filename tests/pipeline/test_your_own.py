"""The lines of docs/your-own.md, exactly as they stand there, come from one's own rows and questions to a table."""

import shutil
import subprocess
from collections.abc import Callable

import pytest

from helpers.shell_lines import lines_of
from helpers.workflow_run import WorkflowRun
from scripts.evaluate.scores import read_scores

pytestmark = [pytest.mark.slow, pytest.mark.full]


def test_the_lines_of_the_page_come_from_files_of_ones_own_to_a_table(
    make_checkout: Callable[[str], WorkflowRun], kept_demo: WorkflowRun
) -> None:
    """With the donors of the demo that was kept, which would be made alike."""
    checkout = make_checkout("own").directory
    shutil.copytree(kept_demo.directory / "resources", checkout / "resources", dirs_exist_ok=True)
    finished = subprocess.run(
        ["bash", "-e", "-c", lines_of(checkout / "docs/your-own.md")], cwd=checkout, capture_output=True, text=True
    )
    assert finished.returncode == 0, (finished.stdout + finished.stderr)[-6000:]
    assert "all of this can be trained on and asked" in finished.stdout + finished.stderr
    for benchmark in ("icons", "icons_listed"):
        overall = [row for row in read_scores(checkout / f"results/own/eval/{benchmark}.csv") if row.group == "overall"]
        assert [(row.model, row.num_questions) for row in overall] == [("graft", 8), ("stage2", 8)]
