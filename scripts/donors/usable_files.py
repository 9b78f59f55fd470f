"""Whether transformers can use what lies beside a donor's weights: its tokenizer, generation settings and picture processing.

What transformers takes without a word would show a stage later, or never: an id that no row of the embedding has, or
pictures scaled by 10^9. So each is built, and used once. This happens in a process of its own, since a donor's file may
keep the library busy for ever, or end it.
"""

import json
import os
import resource
import subprocess
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.common.root import ROOT
from scripts.donors.library_errors import in_one_line

MAX_CPU_S = 600
MAX_WAIT_S = 3600  # of waiting as well, as for a lock that nobody holds
_MAX_REASON_CHARACTERS = 300
_CALL = "from scripts.donors.usable_files import main; main()"

# What must be the same after a tokenizer took it apart and put it together.
_SAMPLE = (
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What is 1 + 1, naïve 東京?  Two spaces.<|im_end|>\n"
    "<|im_start|>assistant\n\tαβγ\n"
)

# Every byte that UTF-8 uses, in letters that Unicode's composition (NFC) leaves as they are. Of the letters of two bytes the
# first 64 have every second byte, of those of three and four bytes a few have every first one.
_EVERY_BYTE = "".join(
    letter
    for number in [
        *range(0x20, 0x7F),
        *range(0xA1, 0x800, 3),
        *range(0x800, 0xD800, 0x400),
        *range(0x10000, 0x40000, 0x10000),
    ]
    if unicodedata.normalize("NFC", letter := chr(number)) == letter and not unicodedata.combining(letter)
)

# Width and height of a picture, neither of which is a multiple of any patch.
_PICTURE_SIZE_PX = (187, 141)
_NUM_FRAMES = 4

# A tower is trained on values within a few standard deviations: published settings give values from -2.2 to 2.7.
_MAX_PIXEL_VALUE = 10.0
_MIN_CONTRAST = 0.5  # between black and white

# Counted in a row, one for each part of its pictures.
_PICTURE_TOKENS = ("<|image_pad|>", "<|video_pad|>")

# Of generation_config.json: what requests or the server's flags set (scripts/serve/settings.py), what names the tokens that end
# an answer, and what decides how fast it comes, not which.
_WITHOUT_INFLUENCE = frozenset({
    "do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "num_beams", "length_penalty", "early_stopping",
    "max_length", "max_new_tokens", "num_return_sequences",
    "bos_token_id", "eos_token_id", "pad_token_id",
    "use_cache", "cache_implementation", "cache_config", "max_cache_len", "prefill_chunk_size", "low_memory", "compile_config",
    "disable_compile", "continuous_batching_config", "output_attentions", "output_hidden_states", "output_scores",
    "output_logits", "return_dict_in_generate", "transformers_version",
})  # fmt: skip

# Files whose tokens transformers adds to those of tokenizer.json.
_ADDING_NAMES = ("added_tokens.json", "tokenizer_config.json")

_ID_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")


def _tokenizer_faults(directory: Path, num_rows: int) -> Iterator[str]:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if largest >= num_rows:
        yield f"token {token!r} has the id {largest}; expected ids below {num_rows}, the vocab_size of config.json"
    for key in ("bos_token", "eos_token", "pad_token"):
        if getattr(tokenizer, key) in _PICTURE_TOKENS:
            yield (
                f"{key} is {getattr(tokenizer, key)!r}, which stands for pictures; each row that is filled up with it would seem "
                "to show some; expected another token"
            )
    if not tokenizer.model_max_length > 0:
        yield f"model_max_length is {tokenizer.model_max_length!r}; expected a positive number of tokens"
    texts = (_SAMPLE, _EVERY_BYTE)
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    for text, each in zip(texts, ids, strict=True):
        yield from _text_faults(
            text, tokenizer.decode(each, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )
    if not (directory / "tokenizer.json").exists():
        return
    # transformers 5 takes only the vocabulary from this file, and others, transformers 4 among them, the whole.
    whole = Tokenizer.from_file(str(directory / "tokenizer.json"))
    for text, each in zip(texts, ids, strict=True):
        others = whole.encode(text, add_special_tokens=False).ids
        yield from _text_faults(text, whole.decode(others, skip_special_tokens=False))
        if others != each:
            yield f"readers of the whole file make {others[:9]}… of a text, transformers {each[:9]}…; expected the same ids"
    yield from _merges_faults(directory)
    for name, token, number in _tokens_with_ids(directory):
        if whole.token_to_id(token) not in (None, number):
            yield f"token {token!r} has the id {number} in {name}, {whole.token_to_id(token)} in the tokenizer; expected one id"
        if whole.token_to_id(token) is None and name in _ADDING_NAMES:
            yield f"token {token!r} of {name} is none of tokenizer.json, whose readers would cut it up; expected it in both"
    for token in tokenizer.all_special_tokens:
        if whole.token_to_id(token) is None:
            yield f"the special token {token!r} of tokenizer_config.json is none of its tokens; expected one of them"


def _merges_faults(directory: Path) -> Iterator[str]:
    """Readers of the one file and of the other would cut a text into different tokens."""
    if not (directory / "merges.txt").exists():
        return
    listed = json.loads((directory / "tokenizer.json").read_bytes())["model"].get("merges") or []
    merges = [each if isinstance(each, str) else " ".join(each) for each in listed]
    lines = (directory / "merges.txt").read_text(encoding="utf-8").splitlines()
    others = [line for line in lines if line and not line.startswith("#version")]
    if merges != others:
        yield f"{len(merges)} merges found, {len(others)} in merges.txt, or in another order; expected the same"


def _tokens_with_ids(directory: Path) -> Iterator[tuple[str, str, Any]]:
    """(file, token, its id) of every file that lists some: each is somebody's source."""
    added = json.loads((directory / "tokenizer.json").read_bytes()).get("added_tokens") or []
    yield from (("tokenizer.json's added_tokens", each["content"], each["id"]) for each in added)
    if (directory / "tokenizer_config.json").exists():
        settings = json.loads((directory / "tokenizer_config.json").read_bytes())
        listed = settings.get("added_tokens_decoder") or {}
        yield from (("tokenizer_config.json", each["content"], int(number)) for number, each in listed.items())
    for name in ("vocab.json", "added_tokens.json"):
        if (directory / name).exists():
            yield from ((name, *pair) for pair in json.loads((directory / name).read_bytes()).items())
    if (directory / "special_tokens_map.json").exists():
        for key, value in json.loads((directory / "special_tokens_map.json").read_bytes()).items():
            if not isinstance(value, str | dict | list):
                raise ValueError(f"special_tokens_map.json: {key} is {value!r}; expected a token")
    if (directory / "merges.txt").exists():
        (directory / "merges.txt").read_text(encoding="utf-8")


def _text_faults(text: str, found: str) -> Iterator[str]:
    if found != text:
        place = next(
            (n for n, (a, b) in enumerate(zip(text, found, strict=False)) if a != b), min(len(text), len(found))
        )
        yield (
            f"a sample text comes back otherwise: {text[place : place + 20]!r} as {found[place : place + 20]!r}; expected the "
            "same text"
        )


def _numbers_in(value: Any) -> list[int]:
    """An id, or a list of them."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _id_faults(values: Mapping[str, Any], num_rows: int) -> Iterator[str]:
    """Ids of tokens that are none; one fault for each key."""
    for key in _ID_KEYS:
        found = values.get(key)
        if found == [] or not all(type(number) is int and 0 <= number < num_rows for number in _numbers_in(found)):
            # true is 1 to Python
            yield f"{key} is {found!r}; expected ids from 0 to {num_rows - 1}, below the vocab_size of config.json"


def _config_faults(directory: Path, num_rows: int) -> Iterator[str]:
    from transformers import AutoConfig

    values = json.loads((directory / "config.json").read_bytes())
    text = values.get("text_config")
    faults = [
        fault for section in (values, text if isinstance(text, dict) else {}) for fault in _id_faults(section, num_rows)
    ]
    if not faults:  # transformers would refuse such an id, too, in other words
        AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    yield from faults


def _generation_faults(directory: Path, num_rows: int) -> Iterator[str]:
    import torch
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    values = json.loads((directory / "generation_config.json").read_bytes())
    if faults := list(_id_faults(values, num_rows)):
        yield from faults
        return
    settings = GenerationConfig.from_pretrained(directory, local_files_only=True)
    settings.validate()
    # The smallest model with as many tokens: what its answers are made with is used, sampling included.
    config = Qwen3Config(
        vocab_size=num_rows,
        hidden_size=2,
        intermediate_size=2,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=2,
    )
    model = Qwen3ForCausalLM(config)
    prompt = torch.zeros(1, 2, dtype=torch.long)
    settings.update(do_sample=settings.temperature != 0, max_new_tokens=2, max_length=None)
    model.generate(prompt, generation_config=settings)
    usual = GenerationConfig._get_default_generation_params()
    for key, found in values.items():
        is_read = hasattr(GenerationConfig(), key) and not key.startswith("_")
        if is_read and key not in _WITHOUT_INFLUENCE and found not in (None, usual.get(key)):
            yield (
                f"{key} is {found!r}; expected none: no request sets it, so this model would be asked in another way than the "
                "others of its table; remove it there"
            )


def _value_faults(black: Any, white: Any, grid: Any) -> Iterator[str]:
    """What is wrong with the values of a black and a white picture: each (patches, values of a patch)."""
    if len(black) != int(grid.prod(dim=-1).sum()):
        yield f"{len(black)} patches were made where the grid has {grid.tolist()}; expected one for each place"
    values = (black, white)
    if not all(each.isfinite().all() and each.abs().max() <= _MAX_PIXEL_VALUE for each in values):
        yield (
            f"pixels become values from {min(float(each.min()) for each in values):.3g} to "
            f"{max(float(each.max()) for each in values):.3g}; expected values between {-_MAX_PIXEL_VALUE:g} and "
            f"{_MAX_PIXEL_VALUE:g}: see rescale_factor, image_mean and image_std"
        )
    elif (contrast := float((white - black).min())) < _MIN_CONTRAST:
        yield (
            f"white is {contrast:.3g} above black; expected at least {_MIN_CONTRAST:g}: see do_rescale, rescale_factor and "
            "image_std"
        )


def _picture_faults(directory: Path) -> Iterator[str]:
    from PIL import Image
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    black, white = (
        processor(images=[Image.new("RGB", _PICTURE_SIZE_PX, colour)], return_tensors="pt")
        for colour in ("black", "white")
    )
    yield from _value_faults(black["pixel_values"], white["pixel_values"], black["image_grid_thw"])


def _video_faults(directory: Path) -> Iterator[str]:
    import numpy as np
    from transformers import AutoVideoProcessor

    processor = AutoVideoProcessor.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    width_px, height_px = _PICTURE_SIZE_PX
    black, white = (
        processor(
            videos=[np.full((_NUM_FRAMES, height_px, width_px, 3), value, dtype=np.uint8)],
            do_sample_frames=False,
            return_tensors="pt",
        )
        for value in (0, 255)
    )
    yield from _value_faults(black["pixel_values_videos"], white["pixel_values_videos"], black["video_grid_thw"])


def _parts_of(directory: Path, role: str, num_rows: int) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(names of a file, of which the first that is there is meant; what finds its faults): what is used of this donor."""
    # First, for transformers reads it with the tokenizer, and would blame that.
    yield ("config.json",), lambda: _config_faults(directory, num_rows)
    yield ("tokenizer.json", "vocab.json"), lambda: _tokenizer_faults(directory, num_rows)
    yield ("generation_config.json",), lambda: _generation_faults(directory, num_rows)
    if role == "vl":
        yield ("preprocessor_config.json", "processor_config.json"), lambda: _picture_faults(directory)
        names = ("video_preprocessor_config.json", "processor_config.json", "preprocessor_config.json")
        yield names, lambda: _video_faults(directory)


def faults_here(directory: Path, role: str, num_rows: int) -> Iterator[str]:
    """Each fault, after the path of its file."""
    for names, faults_of_part in _parts_of(directory, role, num_rows):
        path = next((directory / name for name in names if os.path.lexists(directory / name)), None)
        if path is None:
            continue
        try:
            faults = list(faults_of_part())
        except BaseException as error:  # whatever the library raises: its tokenizers end with one that is no Exception
            reason = in_one_line(error, _MAX_REASON_CHARACTERS)
            faults = [f"cannot be used by transformers ({reason}); expected what it can use"]
        yield from (f"{path}: {fault}" for fault in faults)


def main() -> None:
    """In the process of its own: directory, role and vocab_size as JSON on stdin; the faults as JSON, the last line of stdout."""
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    directory, role, num_rows = json.load(sys.stdin)
    print("\n" + json.dumps(list(faults_here(Path(directory), role, num_rows))))


def usability_faults(directory: Path, role: str, num_rows: int) -> list[str]:
    """What of a donor's files transformers cannot use, or uses in a way that cannot be meant; each begins with the file."""
    try:
        finished = subprocess.run(
            [sys.executable, "-c", _CALL],
            cwd=ROOT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            input=json.dumps([str(directory.absolute()), role, num_rows]),
            capture_output=True,
            text=True,
            timeout=MAX_WAIT_S,
        )
    except subprocess.TimeoutExpired:
        return [
            f"{directory}: transformers has not ended within {MAX_WAIT_S} s with the files beside the weights, whose trial "
            "takes seconds; expected files that it can use"
        ]
    if finished.returncode:
        last = (finished.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return [
            f"{directory}: transformers ended, or took over {MAX_CPU_S} s of processor time, with the files beside the weights "
            f"({last[:_MAX_REASON_CHARACTERS]}); expected files that it can use"
        ]
    faults: list[str] = json.loads(finished.stdout.splitlines()[-1])
    return faults
