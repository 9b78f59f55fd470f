"""Greedy tokens from vLLM, offline, for test_vllm_cpu.py. Runs in the environment serve_cpu.

By hand, from the repository root (a minute), with requests.json as [{"prompt": "...", "pictures": ["a.png"]}, ...]:
  .venvs/serve_cpu/bin/python tests/helpers/generate_by_vllm.py --model-dir results/demo/graft --model-impl transformers \
      --trust-remote-code --num-tokens 16 --requests requests.json --output tokens.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

from PIL import Image
from vllm import LLM, SamplingParams


def model_classes(model: Any) -> list[str]:
    """The model's class and the classes of its layers, each with its module; runs in vLLM's worker."""
    return sorted({f"{type(part).__module__}.{type(part).__qualname__}" for part in model.modules()})


def main() -> None:
    """Writes {"classes": […], "answers": [{"prompt_ids": […], "ids": […]}, …]}."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model-dir", required=True, type=Path)
    parser.add_argument("--model-impl", required=True, choices=["auto", "transformers"])
    parser.add_argument("--trust-remote-code", action="store_true")
    parser.add_argument("--num-tokens", required=True, type=int)
    parser.add_argument("--requests", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()

    llm = LLM(
        str(arguments.model_dir),
        model_impl=arguments.model_impl,
        trust_remote_code=arguments.trust_remote_code,
        dtype="float32",
        enforce_eager=True,
        max_model_len=512,
        max_num_seqs=4,
        limit_mm_per_prompt={"image": 2, "video": 0},
    )
    requests = []
    for request in json.loads(arguments.requests.read_text()):
        pictures = [Image.open(path).convert("RGB") for path in request["pictures"]]
        requests.append({"prompt": request["prompt"]} | ({"multi_modal_data": {"image": pictures}} if pictures else {}))
    sampling = SamplingParams(temperature=0, max_tokens=arguments.num_tokens, ignore_eos=True)
    answers = [
        {"prompt_ids": list(answer.prompt_token_ids), "ids": list(answer.outputs[0].token_ids)}
        for answer in llm.generate(requests, sampling)
    ]
    result = {"classes": llm.apply_model(model_classes)[0], "answers": answers}
    arguments.output.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
