"""A donor's source has what its kind needs and nothing that its kind has no use for."""

import pytest

from scripts.donors.settings import DonorSource


@pytest.mark.parametrize(
    "source",
    [
        DonorSource("demo"),
        DonorSource("local", path="/models/Qwen3-8B"),
        DonorSource("modelscope", id="Qwen/Qwen3-8B", revision="master"),
    ],
)
def test_a_whole_source_has_no_findings(source: DonorSource) -> None:
    assert list(source.findings("donors.llm")) == []


def test_every_key_that_is_missing_or_of_another_kind_is_one_line() -> None:
    assert list(DonorSource("huggingface", path="x").findings("donors.vl")) == [
        "donors.vl.id: missing; kind huggingface needs it",
        "donors.vl.revision: missing; kind huggingface needs it",
        "donors.vl.path: contradicts kind huggingface, which has no path; remove it or change the kind",
    ]


def test_a_section_holds_the_keys_that_are_set() -> None:
    assert DonorSource("local", path="x").section() == {"kind": "local", "path": "x"}
