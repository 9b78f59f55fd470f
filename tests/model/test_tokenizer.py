"""The donors' tokenizer is Qwen's own, cut to its first merges, in files that every reader takes alike."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dashscope.tokenizers import get_tokenizer
from transformers import AutoTokenizer

from helpers.tiny_donor_files import write_json
from helpers.tiny_graft import graft_settings
from scripts.common.errors import UserError
from scripts.demo.qwen_tokenizer import (
    NUM_QWEN_BASE_TOKENS,
    QWEN3_CHAT_TEMPLATE,
    QWEN3_TOKENS,
    SPECIAL_TOKENS,
    build_tokenizer,
    read_ranks,
    save_tokenizer,
    vocabulary_and_merges,
)
from scripts.graft.derive_config import derive_from_donors

TEXTS = [
    "Question: Which digit?\nOptions:\nA. 3\nB. 5\n",
    "  two spaces, 1234 tabs\t and\r\n\r\n line breaks  \n",
    "Zürich, 東京, emoji 🙂, it's we'LL",
    "<|im_start|>user\nHi<|im_end|>\n",
]

ENCODE_BY_TRANSFORMERS_4 = """
import json, sys
from transformers import AutoTokenizer, __version__
assert __version__.startswith("4."), __version__
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
print(json.dumps([tokenizer.encode(text) for text in json.loads(sys.argv[2])]))
"""


def messages_while_loading(directory: Path, config: dict[str, Any]) -> str:
    """What loading the tokenizer beside this config.json prints, in a process of its own."""
    write_json(directory / "config.json", config)
    code = f"from transformers import AutoTokenizer; AutoTokenizer.from_pretrained({str(directory)!r})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr


def chat(directory: Path, messages: list[dict[str, Any]], **options: Any) -> str:
    """The directory's chat template with a prompt for an answer."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)


@pytest.mark.full
@pytest.mark.slow
def test_the_whole_vocabulary_encodes_as_dashscope_does() -> None:
    ours, theirs = build_tokenizer(NUM_QWEN_BASE_TOKENS, qwen3=True), get_tokenizer("qwen-turbo")
    for text in TEXTS[:3]:
        assert ours.encode(text).ids == theirs.encode(text)
    assert [ours.token_to_id(token) for token in SPECIAL_TOKENS] == list(range(151643, 151657))
    assert [ours.token_to_id(token) for token in QWEN3_TOKENS] == [151665, 151666, 151667, 151668]


@pytest.mark.full
@pytest.mark.slow
def test_transformers_does_not_take_the_whole_vocabulary_for_a_broken_mistrals(root: Path, tmp_path: Path) -> None:
    # It looks for that above 100,000 tokens, so the demo's vocabulary would not show it.
    save_tokenizer(build_tokenizer(NUM_QWEN_BASE_TOKENS, qwen3=True), tmp_path, QWEN3_CHAT_TEMPLATE)
    published = [root / "config/models" / name for name in ("Qwen2.5-VL-7B-Instruct", "Qwen3-8B")]
    config = derive_from_donors(*published, graft_settings(architecture="qwen3", calibration="none"))
    assert "incorrect tokenization" not in messages_while_loading(tmp_path, config)
    del config["transformers_version"]
    assert "incorrect tokenization" in messages_while_loading(tmp_path, config)


def test_a_cut_tokenizer_gives_back_every_text() -> None:
    tokenizer = build_tokenizer(300, qwen3=False)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_merges_only_use_what_stands_before_them() -> None:
    vocabulary, merges = vocabulary_and_merges(1000)
    assert len(vocabulary) == 1000 and len(merges) == 1000 - 256
    for first, second in merges:
        assert vocabulary[first + second] > max(vocabulary[first], vocabulary[second])


def test_special_tokens_follow_the_cut_vocabulary_in_qwens_order() -> None:
    tokenizer = build_tokenizer(512, qwen3=False)
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == list(range(512, 512 + len(SPECIAL_TOKENS)))
    assert tokenizer.token_to_id("<think>") is None


def test_more_base_tokens_than_qwen_has_are_refused() -> None:
    with pytest.raises(UserError, match="num_base_tokens"):
        read_ranks(NUM_QWEN_BASE_TOKENS + 1)


def test_both_generations_of_transformers_encode_alike(tiny_llm_dir: Path, evaluate_python: Path) -> None:
    ours = AutoTokenizer.from_pretrained(tiny_llm_dir)
    command = [str(evaluate_python), "-c", ENCODE_BY_TRANSFORMERS_4, str(tiny_llm_dir), json.dumps(TEXTS)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert json.loads(output.splitlines()[-1]) == [ours.encode(text) for text in TEXTS]


def test_the_vision_donors_template_shows_pictures_and_has_a_system_prompt(tiny_vl_dir: Path) -> None:
    content = [{"type": "image"}, {"type": "text", "text": "What?"}]
    assert chat(tiny_vl_dir, [{"role": "user", "content": content}]) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_language_donors_template_drops_pictures_and_earlier_thoughts(tiny_llm_dir: Path) -> None:
    messages = [
        {"role": "user", "content": [{"type": "image"}]},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes"},
        {"role": "user", "content": "Why?"},
    ]
    assert chat(tiny_llm_dir, messages, enable_thinking=False) == (
        "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_building_needs_no_deep_learning_library() -> None:
    code = "import sys, scripts.demo.qwen_tokenizer; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
