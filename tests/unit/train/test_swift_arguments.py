"""Flags become words that ms-swift's parser reads as they were meant."""

import argparse

from scripts.train.swift_arguments import flag_arguments


def test_lists_become_several_words_sections_json_and_nothing_is_left_out() -> None:
    flags = {"a": ["x", 1], "b": {"k": 1}, "c": True, "d": None, "e": 1e-05}
    assert flag_arguments(flags) == ["--a", "x", "1", "--b", '{"k": 1}', "--c", "true", "--e", "1e-05"]


def test_a_text_that_looks_like_a_flag_stays_a_text() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--system", "--prefix"):
        parser.add_argument(name)
    for text in ("-x", "--system", "--prefix=1", "- brief", "-", "a=b", " -x"):
        assert parser.parse_args(flag_arguments({"system": text, "prefix": "p"})).system == text
