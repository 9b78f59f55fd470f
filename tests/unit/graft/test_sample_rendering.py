"""A donor's chat template is rendered within limits: one that never ends or fills the memory is a fault, not a hang."""

import pytest

from helpers.tiny_donor_files import PICTURE_TEMPLATE, TEXT_TEMPLATE
from scripts.graft.sample_rendering import template_fault


def test_the_published_template_shows_pictures_and_a_text_template_does_not() -> None:
    assert template_fault(PICTURE_TEMPLATE) is None
    assert (template_fault(TEXT_TEMPLATE) or "").startswith("renders a message with a picture and a video without")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "did not render a message within",
        ),
        ("{{ 'a' * 2000000000 }}", "MemoryError"),
    ],
    ids=["loops", "two gigabytes"],
)
def test_a_template_without_limit_is_a_fault(template: str, expected: str) -> None:
    assert expected in (template_fault(template) or "")


@pytest.mark.parametrize(("letter", "name"), [("\ufeff", "ufeff"), ("\0", "x00")])
def test_a_character_that_would_stand_in_every_prompt_is_a_fault(letter: str, name: str) -> None:
    assert f"holds the character '\\{name}'" in (template_fault(letter + PICTURE_TEMPLATE) or "")


def test_what_a_template_raises_is_named_with_its_kind() -> None:
    assert (template_fault("{{ 1 / 0 }}") or "").startswith(
        "does not render a message with a picture (ZeroDivisionError: "
    )
    assert "(TemplateSyntaxError: " in (template_fault("{% for %}") or "")
