"""The console shows a job's few inputs that matter, the log file all of them, and the end of a run where the report lies."""

import io
import logging
from pathlib import Path

from scripts.workflow.console import NUM_INPUTS_SHOWN, closing_line, shorten_inputs, shown_inputs


def test_modules_and_what_comes_after_the_first_inputs_are_counted() -> None:
    modules = ["scripts/train/train.py", "/home/me/vlgraft/scripts/common/files.py", "model/a/modeling.py"]
    assert shown_inputs(["rows.jsonl", *modules]) == ["rows.jsonl", "3 modules of programs"]
    pictures = [f"pictures/{number}.png" for number in range(10_000)]
    assert shown_inputs(pictures)[NUM_INPUTS_SHOWN:] == [f"{10_000 - NUM_INPUTS_SHOWN} more files"]
    assert shown_inputs(["a", "b"]) == ["a", "b"]
    assert shown_inputs([]) == []


def test_a_terminal_gets_few_inputs_and_a_file_all(tmp_path: Path) -> None:
    said = io.StringIO()
    handlers = [logging.StreamHandler(said), logging.FileHandler(tmp_path / "log")]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(message)s: %(input)s"))
    shorten_inputs(handlers)
    shorten_inputs(handlers)
    record = logging.makeLogRecord({"msg": "job", "input": [f"{number}.png" for number in range(100)]})
    for handler in handlers:
        handler.handle(record)
        handler.close()
    assert "99.png" not in said.getvalue() and f"{100 - NUM_INPUTS_SHOWN} more files" in said.getvalue()
    assert "99.png" in (tmp_path / "log").read_text()


def test_the_report_is_named_by_the_run_that_made_it() -> None:
    log_text = "rule report:\n    input: a\n    output: results/demo/report.html, results/demo/report.svg\n"
    assert closing_line(log_text, "results/demo/report.html") == "report: results/demo/report.html"
    assert closing_line("rule graft:\n    output: results/demo/graft/ledger.tsv\n", "results/demo/report.html") is None
