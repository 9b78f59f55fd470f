"""Secrets that results of an earlier version hold are on no page."""

from scripts.report.hidden_secrets import without_secrets
from scripts.report.words import flatten


def test_values_of_secret_names_and_secret_values_are_hidden_and_others_stay() -> None:
    value = {"environment": {"WANDB_API_KEY": "0a1b", "MAX_PIXELS": 5, "http_proxy": "http://me:pw@proxy"}, "flags": []}
    assert without_secrets(value) == {
        "environment": {"WANDB_API_KEY": "(secret)", "MAX_PIXELS": 5, "http_proxy": "(secret)"},
        "flags": [],
    }


def test_a_word_of_a_command_is_hidden_behind_its_flag() -> None:
    command = ["python", "sft.py", "--hub_token", "0a1b", "--seed", "7", "--max_pixels", "3"]
    assert without_secrets(command) == [
        "python",
        "sft.py",
        "--hub_token",
        "(secret)",
        "--seed",
        "7",
        "--max_pixels",
        "3",
    ]


def test_the_reports_lists_of_keys_hide_them() -> None:
    assert ("serve.environment.HF_TOKEN", "(secret)") in flatten({"serve": {"environment": {"HF_TOKEN": "0a1b"}}})
