"""A line for the terminal, without the passwords that it holds."""

import pytest

from scripts.common.logger import log


def test_a_password_in_a_line_is_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    log("no answer through http://me:pw@proxy:3128")
    assert capsys.readouterr().err == "no answer through http://(secret)@proxy:3128\n"
