"""What questions need of a server, held against the limits that the configuration sets it."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.evaluation_inputs import native_settings, vlmevalkit_settings
from scripts.evaluate.check_limits import MARGIN_TOKENS, Most, Needs, limit_findings, question_text

NEEDS = Needs(num_pictures=Most(7, "31"), num_tokens=Most(9000, "32"), num_answer_tokens=2048)
NEEDED = 9000 + MARGIN_TOKENS + 2048


def findings(flags: dict[str, Any], max_positions: int = 40960) -> list[str]:
    return list(limit_findings(Path("mmmu.tsv"), NEEDS, flags, max_positions))


@pytest.mark.parametrize("as_text", [False, True])
def test_limits_that_just_suffice_are_sound(as_text: bool) -> None:
    limit = {"image": 7, "video": 2}
    flags = {"vllm_limit_mm_per_prompt": json.dumps(limit) if as_text else limit, "vllm_max_model_len": NEEDED}
    assert findings(flags) == []
    assert findings({}) == []


def test_more_pictures_than_a_request_may_have_are_named_with_their_question() -> None:
    assert findings({"vllm_limit_mm_per_prompt": {"image": 6}}) == [
        "evaluate.serve.flags.vllm_limit_mm_per_prompt: image: 6 found, but question 31 of mmmu.tsv has 7 pictures; expected at "
        "least as many; raise it"
    ]


def test_too_few_tokens_for_a_question_and_its_answer_are_named_with_what_is_needed() -> None:
    (line,) = findings({"vllm_max_model_len": NEEDED - 1})
    assert line.startswith(
        f"evaluate.serve.flags.vllm_max_model_len: {NEEDED - 1} found, but question 32 of mmmu.tsv takes "
    )
    assert f"its answer up to 2048 (max_tokens); expected at least {NEEDED}; raise it, or lower max_tokens" in line


def test_without_a_limit_the_models_own_counts() -> None:
    (line,) = findings({}, max_positions=NEEDED - 1)
    assert line.startswith(f"the model takes {NEEDED - 1} tokens, but question 32")
    assert "raise" not in line


ROW = {"index": "1", "question": "Which?", "A": "red", "B": "green", "answer": "A", "image": "", "hint": "A hint."}


def test_the_text_of_a_question_has_all_that_is_asked() -> None:
    assert question_text(ROW, vlmevalkit_settings()) == "A hint.\nWhich?\nA. red\nB. green"
    assert question_text(ROW, native_settings()) == "Which?\nA. red\nB. green\nOne of A,B."
    sample = {
        "input": [
            {"role": "user", "content": [{"type": "text", "text": "Which one?"}, {"type": "image", "image": "x"}]}
        ]
    }
    assert "Which one?" in question_text({**ROW, "sample": json.dumps(sample)}, native_settings())
