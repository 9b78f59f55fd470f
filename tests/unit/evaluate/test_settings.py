"""What `evaluate.vlmevalkit` and `evaluate.native` may say."""

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from helpers.evaluation_inputs import native_settings, vlmevalkit_settings
from scripts.common.settings import settings_from
from scripts.evaluate.settings import HARNESS_SETTINGS


@pytest.mark.parametrize("name", ["config.yaml", "config/demo.yaml", "config/simple_vl_8b.yaml"])
def test_the_sections_of_each_shipped_configuration_are_read(root: Path, name: str) -> None:
    evaluate = yaml.safe_load((root / name).read_text())["evaluate"]
    for backend, cls in HARNESS_SETTINGS.items():
        settings = settings_from(cls, evaluate[backend], f"evaluate.{backend}")
        assert asdict(settings) == evaluate[backend]
        assert list(asdict(settings)) == sorted(evaluate[backend])  # as they stand in the provenance


def test_a_prompt_is_filled_with_the_question_and_its_options() -> None:
    settings = native_settings(choice_prompt="{question} of {letters}:\n{options} {{}}", open_prompt="Say: {question}")
    assert settings.prompt("Which", {"A": "1", "C": "7"}) == "Which of A,C:\nA. 1\nC. 7 {}"
    assert settings.prompt("Who?", {}) == "Say: Who?"


def test_prompts_that_cannot_be_filled_are_found_a_line_each() -> None:
    settings = native_settings(choice_prompt="{question} {}", open_prompt="{question} {answer}")
    choice, own = settings.findings("evaluate.native")
    assert choice.startswith("evaluate.native.choice_prompt: cannot be filled (IndexError")
    assert own.startswith("evaluate.native.open_prompt: cannot be filled (KeyError: 'answer')")


@pytest.mark.parametrize(
    ("key", "prompt", "reason"),
    [
        ("open_prompt", "{{question}}", "{question} is missing"),
        ("choice_prompt", "{question}", "{options} is missing"),
        ("choice_prompt", "{options} {letters}", "{question} is missing"),
        ("choice_prompt", "{question}{options}{letters!r}", "{letters} with a format"),
        ("choice_prompt", "{question:.0}{options}", "{question} with a format"),
        ("open_prompt", "{question:>2000000000}", "{question} with a format"),
    ],
)
def test_a_prompt_that_would_not_show_what_is_asked_is_refused(key: str, prompt: str, reason: str) -> None:
    (line,) = native_settings(**{key: prompt}).findings("evaluate.native")
    assert line.startswith(f"evaluate.native.{key}: cannot be filled ({reason})")


def test_old_answers_are_never_taken_for_new_ones() -> None:
    (line,) = vlmevalkit_settings(reuse=True).findings("evaluate.vlmevalkit")
    assert line.startswith("evaluate.vlmevalkit.reuse: true would take old answers")
    assert not list(vlmevalkit_settings().findings("evaluate.vlmevalkit"))
