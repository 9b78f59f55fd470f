"""A genuine Qwen tokenizer in the hub's files, from the merge ranks that the `dashscope` package carries.

Byte-pair ranks are ordered: the first N are a tokenizer of their own, with the same splitting and the same special
tokens after them. That is how the demo's donors get Qwen's tokenizer with a vocabulary that a CPU can train.
"""

import base64
import itertools
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from scripts.common.errors import UserError
from scripts.common.files import write_json_atomically, write_text_atomically
from scripts.demo.prompt_texts import SYSTEM_PROMPT

NUM_QWEN_BASE_TOKENS = 151643  # dashscope/resources/qwen.tiktoken; the first special token's id in Qwen2.5 and Qwen3

# In the order of their ids in Qwen2.5 and Qwen3 (151643 to 151664); Qwen3 adds the last four.
SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip

PLAIN_TOKENS = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip
QWEN3_TOKENS = ("<tool_response>", "</tool_response>", "<think>", "</think>")

# How Qwen2 and later cut text before merging (transformers/models/qwen2/tokenization_qwen2.py).
_SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# As Qwen2.5-VL's: a default system prompt, and a picture or a video where the content has one.
VL_CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n"
    "{% endif %}"
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] in ['image', 'image_url'] %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# As Qwen3's: no default system prompt, text content only, earlier thoughts left out, thinking switched off by an empty
# thought. (Qwen3's own also writes tools, which the demo has no use for.)
QWEN3_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% set content = message['content'] if message['content'] is string else '' %}"
    "{% if message['role'] == 'assistant' and '</think>' in content and not loop.last %}"
    "{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)


def read_ranks(num_base_tokens: int) -> dict[bytes, int]:
    """The first `num_base_tokens` byte sequences of Qwen's vocabulary with their ranks, which are their ids."""
    specification = find_spec("dashscope")
    if specification is None or specification.origin is None:
        raise UserError(
            "dashscope: package not found in this environment; expected for Qwen's merge ranks; build the "
            "environment `train` again"
        )
    path = Path(specification.origin).parent / "resources" / "qwen.tiktoken"
    ranks = {}
    for line in path.read_bytes().splitlines():
        token, rank = line.split()
        if int(rank) < num_base_tokens:
            ranks[base64.b64decode(token)] = int(rank)
    if sorted(ranks.values()) != list(range(num_base_tokens)):
        raise UserError(
            f"{path}: {len(ranks)} of the first {num_base_tokens} ranks found; expected all of them; choose "
            f"num_base_tokens up to {NUM_QWEN_BASE_TOKENS}, or install dashscope again"
        )
    return ranks


def byte_to_character() -> dict[int, str]:
    """GPT-2's printable character for each byte, as byte-level vocabularies are written."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def merge_of(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts whose merge made `token`: what lower ranks alone make of it."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        candidates = [(ranks.get(a + b, rank), i) for i, (a, b) in enumerate(itertools.pairwise(parts))]
        best_rank, i = min(candidates)
        if best_rank >= rank:
            raise UserError(f"qwen.tiktoken: rank {rank} is no merge of lower ranks; install dashscope again")
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]


def vocabulary_and_merges(num_base_tokens: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """vocab.json and merges.txt of the tokenizer with the first `num_base_tokens` ranks."""
    ranks = read_ranks(num_base_tokens)
    characters = byte_to_character()

    def written(token: bytes) -> str:
        return "".join(characters[byte] for byte in token)

    in_order = sorted(ranks.items(), key=lambda item: item[1])
    merges = [merge_of(token, rank, ranks) for token, rank in in_order if len(token) > 1]
    return {written(token): rank for token, rank in in_order}, [(written(a), written(b)) for a, b in merges]


def build_tokenizer(num_base_tokens: int, *, qwen3: bool) -> Tokenizer:
    """Qwen's tokenizer cut to `num_base_tokens`, with Qwen2.5-VL's added tokens or Qwen3's."""
    vocabulary, merges = vocabulary_and_merges(num_base_tokens)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, fuse_unk=False, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    plain = PLAIN_TOKENS + (QWEN3_TOKENS if qwen3 else ())
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    return tokenizer


def single_id(tokenizer: Tokenizer, text: str) -> int:
    """The id of a text that must be one token; raises UserError when it is several."""
    ids = tokenizer.encode(text).ids
    if len(ids) != 1:
        raise UserError(f"num_base_tokens: {text!r} is {len(ids)} tokens; expected one; raise num_base_tokens")
    return ids[0]


def tokenizer_config(tokenizer: Tokenizer, chat_template: str) -> dict[str, Any]:
    """tokenizer_config.json as Qwen publishes it."""
    added = {
        str(token_id): {
            "content": token.content,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": token.special,
        }
        for token_id, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "bos_token": None,
        "chat_template": chat_template,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def save_tokenizer(tokenizer: Tokenizer, directory: Path, chat_template: str) -> None:
    """Writes tokenizer.json, tokenizer_config.json, vocab.json and merges.txt."""
    model = json.loads(tokenizer.to_str())["model"]
    write_text_atomically(directory / "tokenizer.json", tokenizer.to_str(pretty=True))
    write_text_atomically(directory / "vocab.json", json.dumps(model["vocab"], ensure_ascii=False))
    write_text_atomically(directory / "merges.txt", "".join(" ".join(merge) + "\n" for merge in model["merges"]))
    write_json_atomically(directory / "tokenizer_config.json", tokenizer_config(tokenizer, chat_template))
