"""Loads a checkpoint as a user who has downloaded it would, and asks about a picture; prints one line of JSON.

It must work without this repository, so this file imports nothing of it, and check_checkpoint.py starts it by an isolated
interpreter (-I) in an empty directory. Code that comes with the checkpoint is run only where its config.json asks for it.

By hand:
  .venvs/train/bin/python -I scripts/upload/load_checkpoint.py "$PWD/results/demo/stage2/checkpoint" "$PWD"
"""

import hashlib
import importlib.util
import json
import random
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from PIL import Image

# The package of the architecture in this repository (model/); it must not be installed where this runs.
PACKAGE = "qwen2_5_vl_qwen3"

# Of this repository. Its environments (.venvs) are allowed: a user has such packages as well.
OWN_DIRECTORIES = ("scripts", "model", "tests", "benchmarks")

# transformers copies code that comes with a checkpoint into a package of this name, whose __init__.py are empty.
DYNAMIC_MODULES = "transformers_modules."
PICTURE_SIZE_PX = (168, 112)
NUM_NEW_TOKENS = 4


class Fault(Exception):
    """A fault of the checkpoint, in one line."""


def check_repository_is_not_loaded(repository: Path) -> None:
    """Raises Fault when a module of the repository can be found or was loaded."""
    if importlib.util.find_spec(PACKAGE) is not None:
        raise Fault(f"a module {PACKAGE} is installed in {sys.prefix}; expected an environment without it")
    own = [(repository / name).resolve() for name in OWN_DIRECTORIES]
    this_program = sys.modules["__main__"]  # multiprocessing knows it by another name as well
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if (
            module is not this_program
            and path
            and any(Path(path).resolve().is_relative_to(directory) for directory in own)
        ):
            raise Fault(f"module {name} was loaded from {path}; expected nothing of the repository")


def code_that_ran() -> dict[str, str]:
    """{file name: sha256} of the Python files outside transformers that loading has run: those that came with the checkpoint."""
    loaded = [module for name, module in list(sys.modules.items()) if name.startswith(DYNAMIC_MODULES)]
    paths = [Path(path) for module in loaded if (path := getattr(module, "__file__", None))]
    contents = {path.name: path.read_bytes() for path in paths}
    return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items()) if content}


def read_card(directory: Path) -> int:
    """The number of results that the hub's own library reads from README.md."""
    try:
        card = huggingface_hub.ModelCard((directory / "README.md").read_text(encoding="utf-8"))
    except Exception as error:  # ValueError, YAML errors and others: the hub would not read it either
        raise Fault(f"README.md: huggingface_hub cannot read it: {error}") from None
    return len(card.data.eval_results or [])


def load(directory: Path) -> tuple[Any, Any]:
    """Processor and model; raises Fault unless every tensor found its place and every place its tensor."""
    trust = "auto_map" in json.loads((directory / "config.json").read_text(encoding="utf-8"))
    transformers.AutoConfig.from_pretrained(directory, trust_remote_code=trust)
    transformers.AutoTokenizer.from_pretrained(directory, trust_remote_code=trust)
    processor = transformers.AutoProcessor.from_pretrained(directory, trust_remote_code=trust)
    model, info = transformers.AutoModelForImageTextToText.from_pretrained(
        directory, dtype="auto", trust_remote_code=trust, output_loading_info=True
    )
    for kind, names in info.items():
        if names:
            raise Fault(
                f"{kind} when loaded: {min(map(str, names))} ({len(names)} such); expected every tensor to find its place"
            )
    return processor, model.eval()


def answer(processor: Any, model: Any) -> tuple[int, str]:
    """The number of tokens of a picture of noise, and the generated answer. Raises Fault when either is not sound."""
    width_px, height_px = PICTURE_SIZE_PX
    picture = Image.frombytes("RGB", PICTURE_SIZE_PX, random.Random(0).randbytes(3 * width_px * height_px))
    content = [{"type": "image"}, {"type": "text", "text": "What is in the picture?"}]
    messages = [{"role": "user", "content": content}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[prompt], images=[picture], return_tensors="pt")
    num_picture_tokens = int((inputs["input_ids"] == model.config.image_token_id).sum())
    if num_picture_tokens == 0:
        raise Fault("the chat template shows no picture: no picture token in a question about one")
    with torch.inference_mode():
        output = model.generate(
            **inputs.to(model.dtype),
            max_new_tokens=NUM_NEW_TOKENS,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
    if not all(logits.isfinite().all() for logits in output.logits):
        raise Fault("the logits behind a picture are not finite")
    new_ids = output.sequences[0, inputs["input_ids"].shape[1] :]
    return num_picture_tokens, processor.decode(new_ids)


def main() -> None:
    directory, repository = map(Path, sys.argv[1:])
    try:
        check_repository_is_not_loaded(repository)
        num_results = read_card(directory)
        processor, model = load(directory)
        num_picture_tokens, text = answer(processor, model)
        check_repository_is_not_loaded(repository)
    except Fault as fault:
        print(json.dumps({"fault": str(fault)}))
        return
    found = {
        "model": type(model).__name__,
        "code_from": "the checkpoint" if type(model).__module__.startswith(DYNAMIC_MODULES) else "transformers",
        "code": code_that_ran(),
        "processor": type(processor).__name__,
        "dtype": str(model.dtype).removeprefix("torch."),
        "num_parameters": model.num_parameters(),
        "num_results_in_card": num_results,
        "num_picture_tokens": num_picture_tokens,
        "generated": text,
        "versions": {package.__name__: package.__version__ for package in (torch, transformers, huggingface_hub)},
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
