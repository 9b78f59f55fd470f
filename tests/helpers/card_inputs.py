"""Builds everything that make_model_card.py reads, where the run's layout has it and as the other programs write it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.report_inputs import COMMIT, ReportInputs, build, donor_manifest, make_metrics, sealed
from scripts.common.files import sha256_of_file
from scripts.common.reading import SEAL_KEY
from scripts.common.settings import settings_from
from scripts.donors.model_files import model_sha256
from scripts.evaluate.model_names import base_of
from scripts.upload.make_model_card import make
from scripts.upload.settings import CardSettings
from scripts.workflow.layout import STAGES
from scripts.workflow.steps import upload_make_model_card

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
    """The files of a run whose stage gets a card."""

    report: ReportInputs
    stage: str = "stage2"

    @property
    def directory(self) -> Path:
        return self.report.directory

    @property
    def checkpoint_dir(self) -> Path:
        return self.report.path(self.report.layout.checkpoint_dir(self.stage))

    @property
    def card_path(self) -> Path:
        return self.checkpoint_dir / "README.md"

    def donor_dir(self, role: str) -> Path:
        return self.directory / "donors" / role

    def manifest_path(self, role: str) -> Path:
        return self.report.path(self.report.layout.donor_manifest(role))

    def settings_path(self, stage: str) -> Path:
        return self.report.path(self.report.layout.checkpoint_dir(stage)) / "settings.json"

    def make(self) -> None:
        """Writes the card."""
        self.report.accept_edits()
        configuration = upload_make_model_card(self.report.layout, self.stage).options["configuration"]
        with self.report.as_working_directory():
            make(self.stage, settings_from(CardSettings, configuration, "configuration"), COMMIT)


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
    """Another content, as the program would have written it: sealed if it was."""
    found = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, sealed(found | changes) if SEAL_KEY in found else found | changes)


def declare(inputs: CardInputs, name: str) -> None:
    """Metrics and scores of a stage's checkpoint as it is."""
    layout = inputs.report.layout
    settings_path = inputs.settings_path(name)
    sha256 = {"checkpoint_sha256": model_sha256(settings_path.parent)}
    changes = {"num_tokens_seen": NUM_TOKENS_SEEN, "settings_sha256": sha256_of_file(settings_path), **sha256}
    metrics = make_metrics(name, num_steps=60, seed=0) | changes
    inputs.report.write_json(layout.metrics(name), metrics)
    provenance = layout.scores_provenance(inputs.report.benchmark)
    models = inputs.report.read_json(provenance)["models"]
    models |= {model: found | sha256 for model, found in models.items() if base_of(model) == name}
    inputs.report.write_json(provenance, {"models": models})


def build_card_inputs(directory: Path, stage: str = "stage2") -> CardInputs:
    """Writes a whole set of inputs into `directory`; the donors are two of a hub whose files say nothing of a license."""
    inputs = CardInputs(build(directory), stage)
    config, layout = inputs.report.config, inputs.report.layout
    for role, model_id in (("vl", "lab/Sees-7B"), ("llm", "lab/Talks-8B")):
        config["donors"][role] = {"kind": "huggingface", "id": model_id, "revision": "main"}
        inputs.donor_dir(role).mkdir(parents=True)
        manifest = donor_manifest(role) | {"source": config["donors"][role], "dir": str(inputs.donor_dir(role))}
        inputs.report.write_json(layout.donor_manifest(role), manifest)
    for name in STAGES:
        write_json(inputs.settings_path(name), stage_settings(name))
        write_json(inputs.settings_path(name).with_name("config.json"), MODEL_CONFIG)
        write_json(inputs.settings_path(name).with_name("preprocessor_config.json"), {"min_pixels": MIN_PIXELS})
        declare(inputs, name)
    return inputs
