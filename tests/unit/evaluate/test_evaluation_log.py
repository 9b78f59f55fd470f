"""The log of an evaluation, without the passwords that a line holds."""

from pathlib import Path

from scripts.evaluate.evaluation_log import make_logger


def test_a_password_in_a_line_is_hidden(tmp_path: Path) -> None:
    make_logger(tmp_path / "a.log")("no answer through http://me:pw@proxy:3128")
    assert (tmp_path / "a.log").read_text().endswith("no answer through http://(secret)@proxy:3128\n")
