"""Builds everything that make_model_card.py reads, in the shape that the other programs write, from a fixed seed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.report_inputs import ReportInputs, build, donor_manifest, make_metrics

STAGES = ("stage1", "stage2")
NUM_TOKENS_SEEN = 123_456
MIN_PIXELS = 3136
MAX_PIXELS = 6272
SOURCES = {
    "stage1": ["hf::lab/pretrain:captions#500"],
    "stage2": ["/home/somebody/secret/own.jsonl#20", "swift/llava-data:llava_instruct"],
}
MODEL_CONFIG = {
    "architectures": ["Qwen2_5_VLQwen3ForConditionalGeneration"],
    "auto_map": {"AutoConfig": "configuration_qwen2_5_vl_qwen3.Qwen2_5_VLQwen3Config"},
    "model_type": "qwen2_5_vl_qwen3",
    "dtype": "bfloat16",
    "text_config": {
        "num_hidden_layers": 36, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 151936, "max_position_embeddings": 40960,
    },
    "vision_config": {"depth": 32, "hidden_size": 1280},
}  # fmt: skip


@dataclass
class CardInputs:
    """Where the inputs lie; `arguments` is the command line that names them."""

    report: ReportInputs
    stage: str = "stage2"

    @property
    def directory(self) -> Path:
        return self.report.directory

    @property
    def checkpoint_dir(self) -> Path:
        return self.directory / self.stage / "checkpoint"

    @property
    def card_path(self) -> Path:
        return self.checkpoint_dir / "README.md"

    def donor_dir(self, role: str) -> Path:
        return self.directory / "donors" / role

    def arguments(self) -> list[str]:
        stages = STAGES[: STAGES.index(self.stage) + 1]
        path = self.report.path
        return [
            *("--checkpoint-dir", str(self.checkpoint_dir), "--commit", "0123456789abcdef0123456789abcdef01234567"),
            *("--metrics", *(f"{stage}={self.directory / stage / 'metrics.json'}" for stage in stages)),
            *("--dataset-check", *(f"{stage}={path('data.check.json')}" for stage in stages)),
            *("--donor", str(path("vl.json")), str(path("llm.json"))),
            *("--ledger", str(path("ledger.tsv")), "--fidelity", str(path("fidelity.json"))),
            *("--benchmark", "digits=Digits", "--scores", f"digits={path('digits.csv')}"),
            *("--score-provenance", f"digits={path('digits.json')}"),
        ]


def stage_settings(stage: str) -> dict[str, Any]:
    """What a stage was exported with."""
    return {
        "stage": stage,
        "seed": 42,
        "datasets": SOURCES[stage],
        "num_nodes": 1,
        "num_processes_per_node": 8,
        "deepspeed": "zero2",
        "environment": {"MAX_PIXELS": MAX_PIXELS},
        "flags": {"learning_rate": 0.00123, "freeze_vit": stage == "stage1"},
    }


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def edit_json(path: Path, **changes: Any) -> None:
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **changes})


def build_card_inputs(directory: Path, stage: str = "stage2") -> CardInputs:
    """Writes a whole set of inputs into `directory`; the donors are two of a hub whose files say nothing of a license."""
    inputs = CardInputs(build(directory), stage)
    for name in STAGES:
        metrics = make_metrics(name, num_steps=60, seed=0) | {"num_tokens_seen": NUM_TOKENS_SEEN}
        write_json(directory / name / "metrics.json", metrics)
        write_json(directory / name / "checkpoint" / "settings.json", stage_settings(name))
        write_json(directory / name / "checkpoint" / "config.json", MODEL_CONFIG)
        write_json(directory / name / "checkpoint" / "preprocessor_config.json", {"min_pixels": MIN_PIXELS})
    for role, model_id in (("vl", "lab/Sees-7B"), ("llm", "lab/Talks-8B")):
        inputs.donor_dir(role).mkdir(parents=True)
        source = {"kind": "huggingface", "id": model_id, "revision": "main"}
        manifest = donor_manifest(role) | {"source": source, "dir": str(inputs.donor_dir(role))}
        inputs.report.write_json(f"{role}.json", manifest)
    return inputs
