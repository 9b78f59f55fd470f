"""What a terminal is shown says nothing of its own."""

from scripts.common.terminal_text import shown


def test_plain_text_stays_as_it_is() -> None:
    text = "a.json: é \N{NARROW NO-BREAK SPACE}1\tfound"
    assert shown(text) == text


def test_a_name_with_a_line_feed_cannot_look_like_a_message() -> None:
    assert shown("tensor a\nerror: all is lost: bad") == "tensor a\n  error: all is lost: bad"
    assert shown("rows:\n    row 1\n\n") == "rows:\n    row 1\n\n"


def test_what_steers_a_terminal_and_what_none_can_show_is_written_out() -> None:
    assert shown("a\x1b[2Jb\r\x00\x9b\ud800") == r"a\x1b[2Jb\r\x00\x9b\ud800"


def test_secrets_are_hidden() -> None:
    assert shown("http://me:word@hub.example\nhttp://me:word@hub.example").count("(secret)") == 2
