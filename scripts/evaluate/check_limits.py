"""Checks that every question of a benchmark fits into what the server takes: pictures a request, and tokens with the answer.

A question that does not fit is refused by vLLM, and one question without an answer refuses the whole table: hours later, without
this. Questions are encoded by ms-swift's own template, as the server does; its wording of the prompt may differ by some words.

By hand: .venv/bin/python scripts evaluate.check_limits --config config.yaml --benchmark mmmu
"""

import argparse
import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from scripts.common.errors import UserError, run_program
from scripts.common.input_files import read_section
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.reading import write_sealed
from scripts.common.settings import json_settings
from scripts.data.settings import TEMPLATE_FLAGS, EncodingSettings
from scripts.data.training_encoding import TOKEN_IN_TEXT, RowEncoder, training_template
from scripts.evaluate.settings import HARNESS_SETTINGS, HarnessSettings, NativeSettings
from scripts.questions.native_samples import letters_of
from scripts.questions.pictures import pictures_of
from scripts.questions.tables import read_benchmark, rows_of
from scripts.serve.settings import ServeSettings

# For words that a harness puts around a question, and another model's chat template.
MARGIN_TOKENS = 64


@dataclass(frozen=True)
class Most:
    """The largest number of something in a question, and the index of that question."""

    num: int
    index: str


@dataclass(frozen=True)
class Needs:
    """What the questions of a benchmark need of a server."""

    num_pictures: Most
    num_tokens: Most  # with the pictures', without the answer's
    num_answer_tokens: int


def question_text(row: Mapping[str, str], settings: HarnessSettings) -> str:
    """What is asked, without the pictures and about as the harness words it."""
    if row.get("sample"):  # EvalScope's own
        return " ".join(_texts_in(json.loads(row["sample"])["input"]))
    options = {letter: row[letter] for letter in letters_of(row)}
    if isinstance(settings, NativeSettings):
        return settings.prompt(row["question"], options)
    return "\n".join([row.get("hint", ""), row["question"], *(f"{key}. {text}" for key, text in options.items())])


def _texts_in(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [text for key, each in value.items() if key != "image" for text in _texts_in(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts_in(each)]
    return [value] if isinstance(value, str) else []


def needs_of(
    path: Path,
    encoder: RowEncoder,
    sizes: dict[str, tuple[int, int]],
    settings: HarnessSettings,
    *,
    needs_pictures: bool,
) -> Needs:
    """Encodes every question. `sizes` are the encoder's, and filled here. Raises UserError for one that no server could take."""
    table = read_benchmark(path, needs_pictures=needs_pictures)
    most_pictures, most_tokens = Most(0, ""), Most(0, "")
    for row, pictures in zip(rows_of(table), pictures_of(table, path), strict=True):
        names = [str(number) for number in range(len(pictures))]
        sizes.update(zip(names, map(size_px, pictures), strict=True))
        text = "<image>" * len(names) + question_text(row, settings).replace("<image>", "")
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "A"}]
        found = encoder.encoded({"messages": messages, "images": names} if names else {"messages": messages})
        if found.problem == TOKEN_IN_TEXT:
            log(
                f"{path}: note: question {row['index']} holds a token of the model ({found.detail}); its length was not counted"
            )
            continue
        if found.problem:
            raise UserError(
                f"{path}: question {row['index']}: {found.problem} ({found.detail}); expected one that the model's template "
                "takes; correct or remove it"
            )
        most_pictures = max(most_pictures, Most(len(names), row["index"]), key=lambda most: most.num)
        most_tokens = max(most_tokens, Most(found.num_tokens, row["index"]), key=lambda most: most.num)
    return Needs(most_pictures, most_tokens, settings.max_tokens)


def size_px(picture: str) -> tuple[int, int]:
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        return image.size


def limit_findings(path: Path, needs: Needs, flags: Mapping[str, Any], max_positions: int) -> Sequence[str]:
    """Limits of the server below what the questions need, a line each."""
    where, found = "evaluate.serve.flags", []
    limits = flags.get("vllm_limit_mm_per_prompt", {})
    limits = json.loads(limits) if isinstance(limits, str) else limits
    limit = limits.get("image")
    if limit is not None and limit < needs.num_pictures.num:
        found.append(
            f"{where}.vllm_limit_mm_per_prompt: image: {limit} found, but question {needs.num_pictures.index} of {path} has "
            f"{needs.num_pictures.num} pictures; expected at least as many; raise it"
        )
    needed = needs.num_tokens.num + MARGIN_TOKENS + needs.num_answer_tokens
    stated = flags.get("vllm_max_model_len")
    if (most := stated or max_positions) < needed:
        origin = f"{where}.vllm_max_model_len: {most} found" if stated else f"the model takes {most} tokens"
        found.append(
            f"{origin}, but question {needs.num_tokens.index} of {path} takes about {needs.num_tokens.num} and its answer up to "
            f"{needs.num_answer_tokens} (max_tokens); expected at least {needed}; "
            + ("raise it, or " if stated else "")
            + "lower max_tokens, or MAX_PIXELS in evaluate.serve.environment"
        )
    return found


def max_positions_of(model_dir: Path) -> int:
    config = read_section(model_dir / "config.json")
    return int(config.get("text_config", config)["max_position_embeddings"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--benchmark-tsv", type=Path, required=True)
    parser.add_argument("--backend", choices=tuple(HARNESS_SETTINGS), required=True, help="EvalScope's")
    parser.add_argument("--settings", required=True, metavar="JSON", help="evaluate.BACKEND")
    parser.add_argument(
        "--serve",
        type=json_settings(ServeSettings, "evaluate.serve"),
        required=True,
        metavar="JSON",
        help="evaluate.serve",
    )
    parser.add_argument(
        "--model-dir", type=Path, required=True, help="config.json, tokenizer and processor of the graft"
    )
    parser.add_argument("--output", type=Path, required=True, help="the record to write if all fits")
    arguments = parser.parse_args()
    serve: ServeSettings = arguments.serve
    settings = json_settings(HARNESS_SETTINGS[arguments.backend], f"evaluate.{arguments.backend}")(arguments.settings)
    path: Path = arguments.benchmark_tsv
    with owned(arguments.output, inputs=[path]):
        flags = {name: value for name, value in serve.flags.items() if name in TEMPLATE_FLAGS}
        sizes: dict[str, tuple[int, int]] = {}
        encoder = RowEncoder(training_template(arguments.model_dir, EncodingSettings(serve.environment, flags)), sizes)
        needs = needs_of(path, encoder, sizes, settings, needs_pictures=arguments.backend == "vlmevalkit")
        if found := limit_findings(path, needs, serve.flags, max_positions_of(arguments.model_dir)):
            raise UserError("\n".join(found))
        write_sealed(arguments.output, asdict(needs))
        log(
            f"{path}: at most {needs.num_pictures.num} pictures and about {needs.num_tokens.num} tokens a question, and "
            f"{needs.num_answer_tokens} of the answer, fit into the server's limits"
        )


if __name__ == "__main__":
    run_program(main)
