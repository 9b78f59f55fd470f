"""The YAML of a donor's page is read as far as it is plain; what would fill the memory or break a reader is none."""

import pytest

from scripts.upload.front_matter import read_front_matter


def test_keys_and_values_are_read() -> None:
    assert read_front_matter("---\nlicense: mit\ntags: [a, b]\n---\n# A model\n") == {
        "license": "mit",
        "tags": ["a", "b"],
    }


@pytest.mark.parametrize(
    ("yaml_text", "reason"),
    [
        ("a: &a [1, 1]\nb: [*a, *a]", "aliases found"),
        ("a: " + "[" * 500_000, "no YAML: nested in more than 200 levels"),
        ("a: " + "[1, {b: " * 500, "no YAML: nested in more than 200 levels"),
        ("- " * 50_000, "no YAML: nested in more than 200 levels"),
        ('a: !!int ""', "no YAML: string index out of range"),
        ("a: [", "no YAML: while parsing"),
        ("[1]", "list found, no keys and values"),
    ],
    ids=["aliases", "deep", "deep and mixed", "deep blocks", "an empty number", "cut off", "a list"],
)
def test_what_is_no_plain_yaml_is_a_fault_with_its_reason(yaml_text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_front_matter(f"---\n{yaml_text}\n---\n")
