"""Builds everything that make_report.py reads, where the run's layout has it and as the other programs write it."""

import ast
import base64
import copy
import csv
import hashlib
import io
import json
import math
import os
import random
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image, ImageDraw

from helpers.evaluation_inputs import provenance
from scripts.common.files import sha256_of_file
from scripts.common.reading import SEAL_KEY, seal_of
from scripts.common.root import ROOT
from scripts.data.bad_rows import DroppedRow
from scripts.data.dataset_check import DatasetCheck, LengthBin, Spread, TokenCounts
from scripts.report.commit import Commit
from scripts.report.inputs import read_inputs
from scripts.report.page import render
from scripts.train.losses import LossPoint
from scripts.train.metrics import Metrics, Resume, StepTimes
from scripts.workflow import layout as layout_module
from scripts.workflow.layout import STAGES, Layout

LETTERS = "ABCD"
COMMIT = Commit("0123456789abcdef0123456789abcdef01234567", is_dirty=False)
# A time of change for every input, so that the page's date is known: 2026-01-02 03:04 UTC.
CHANGED_AT = 1767323040
MODULES = {"vision_tower": (241_000, 36), "aligner": (57_000, 5), "language_model": (312_000, 40)}
SKILLS = {"graft": 0.27, "stage1": 0.84, "stage2": 0.98, "stage2-shuffled": 0.26}
LEDGER = [
    ("copied", "llm", 40, 1_300_000, "the language donor"),
    ("copied", "vl", 36, 900_000, "the vision donor's vision tower"),
    ("initialised", "", 5, 228_000, "aligner: fresh; all 0"),
    ("dropped", "vl", 31, 1_900_000, "the vision donor's language model; replaced by the language donor"),
]


def ledger_text() -> str:
    lines = ["name\tdonor\tpolicy\toutput_name\tdtype\tshape\tbytes\tsha256\tdonor_file\toutput_file\treason"]
    for policy, donor, number, num_bytes, reason in LEDGER:
        row = f"{donor}\t{policy}\tt\tF32\t8x8\t{num_bytes // number}\t0\ta\tb\t{reason}"
        lines += [f"{policy}.{donor}.{place}\t{row}" for place in range(number)]
    return "\n".join(lines) + "\n"


FIDELITY = {
    "architecture": "qwen3",
    "calibration": {"kind": "none"},
    "dtype": "float32",
    "num_texts": 9,
    "bit_equal": True,
    "num_tokens": 512,
    "max_abs_difference": 0.0,
    "first_difference": None,
    "kl_mean_nats": 0.0,
    "perplexity_donor": 4.0951,
    "perplexity_graft": 4.0951,
    "top1_agreement": 1.0,
    "dropped": {"num_tensors": 0, "num_parameters": 0, "kinds": {}},
    "picture": {"num_tokens": 24, "finite": True, "max_logit_change_between_pictures": 3.21, "mrope_axes_differ": True},
    "loading_info": {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []},
    "text": "LICENSE",
    "text_sha256": "cd" * 32,
    "graft_sha256": hashlib.sha256(b"graft").hexdigest(),
    "ledger_sha256": hashlib.sha256(ledger_text().encode()).hexdigest(),
    "versions": {"torch": "2.13.0", "transformers": "5.19.0"},
}
NUM_PROCESSES = 8
DATASET_CHECK = DatasetCheck(
    num_rows=6582,
    num_dropped_rows=1,
    num_duplicate_rows=0,
    num_assistant_turns=6582,
    num_pictures=6582,
    num_picture_references=6582,
    picture_width_px=Spread(56, 56, 56),
    picture_height_px=Spread(56, 56, 56),
    picture_area_px=Spread(3136, 3136, 3136),
    num_changed_pictures={"turned upright": 3},
    tokens=TokenCounts(391_629, 26_328, 19_746, Spread(39, 59.5, 80), 512, [LengthBin(64, 3291), LengthBin(128, 3291)]),
    dropped=[DroppedRow("/data/rows.jsonl", 7, "picture not found: /data/a.png")],
    num_bytes=1_000_000,
    sha256="ab" * 32,
)
VERSIONS = {"ms-swift": "4.6.0", "transformers": "5.19.0", "torch": "2.13.0", "deepspeed": "0.19.8"}


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """What `write_sealed` writes."""
    content = {key: part for key, part in json.loads(json.dumps(value)).items() if key != SEAL_KEY}
    return content | {SEAL_KEY: seal_of(content)}


def wilson(num_correct: int, num_questions: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson's score interval)."""
    z = 1.959964
    share = num_correct / num_questions
    middle = (share + z * z / (2 * num_questions)) / (1 + z * z / num_questions)
    half = z / (1 + z * z / num_questions)
    half *= math.sqrt(share * (1 - share) / num_questions + z * z / (4 * num_questions**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def png(digit: int, size_px: int = 56) -> bytes:
    """A picture of a digit."""
    picture = Image.new("L", (size_px, size_px))
    ImageDraw.Draw(picture).text((size_px // 3, size_px // 5), str(digit), fill=255)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def make_questions(num_questions: int, seed: int, split: str = "test") -> list[dict[str, str]]:
    """Rows of a VLMEvalKit table."""
    rng = random.Random(f"{seed}:{split}")
    rows = []
    for index in range(num_questions):
        digit = index % 10
        options = [digit, *rng.sample([other for other in range(10) if other != digit], 3)]
        rng.shuffle(options)
        rows.append(
            {
                "index": str(index),
                "image": base64.b64encode(png(digit)).decode(),
                "question": "Which digit?",
                **{letter: str(option) for letter, option in zip(LETTERS, options, strict=True)},
                "answer": LETTERS[options.index(digit)],
                "category": f"digit {digit}",
                "l2-category": "with a loop" if digit in (0, 6, 8, 9) else "without a loop",
                "split": split,
            }
        )
    return rows


def picture_sha256(cell: str) -> str:
    """One hash over the bytes of the picture, or pictures, of a row."""
    parts = ast.literal_eval(cell) if cell.startswith("[") else [cell]
    return hashlib.sha256(b"".join(base64.b64decode(part) for part in parts)).hexdigest()


def answer(question: dict[str, str], skill: float, rng: random.Random) -> dict[str, Any]:
    """The record of a model that is right with the probability `skill`."""
    right = question["answer"]
    said: str | None = right if rng.random() < skill else rng.choice([x for x in LETTERS if x != right])
    prediction, status = str(said), "answered"
    if rng.random() < 0.02:
        said, prediction, status = None, "The picture shows a digit.", "unparsed"
    return {
        "index": question["index"],
        "split": question["split"],
        "discipline": question["l2-category"] or None,
        "subject": question["category"] or None,
        "question": question["question"],
        "options": {letter: question[letter] for letter in LETTERS if question.get(letter)},
        "answer": right,
        "prediction": prediction,
        "extracted": said,
        "score": float(said == right),
        "correct": said == right,
        "metric": "accuracy",
        "status": status,
        "seed": 0,
        "image_sha256": picture_sha256(question["image"]),
    }


def score_rows(model: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the score table that sum up one model's records."""
    rows = []
    for split in sorted({record["split"] for record in records}):
        of_split = [record for record in records if record["split"] == split]
        parts = [("overall", "", of_split)]
        for group in ("discipline", "subject"):
            for name in sorted({record[group] for record in of_split if record[group]}):
                parts.append((group, name, [record for record in of_split if record[group] == name]))
        for group, name, part in parts:
            num_correct = sum(record["correct"] for record in part)
            low, high = wilson(num_correct, len(part))
            rows.append(
                {
                    "model": model,
                    "split": split,
                    "group": group,
                    "name": name,
                    "num_questions": len(part),
                    "num_correct": num_correct,
                    "accuracy": f"{num_correct / len(part):.6f}",
                    "ci95_low": f"{low:.6f}",
                    "ci95_high": f"{high:.6f}",
                    "num_unparsed": sum(record["status"] == "unparsed" for record in part),
                    "num_truncated": sum(record["status"] == "truncated" for record in part),
                    "num_seeds": 1,
                    "metric": "accuracy",
                }
            )
    return rows


def make_metrics(stage: str, num_steps: int, seed: int, resumed_at: int | None = None) -> dict[str, Any]:
    """The metrics of a stage whose loss falls with noise."""
    rng = random.Random(f"{seed}:{stage}")
    trains = {name: stage == "stage2" or name == "aligner" for name in MODULES}
    start = 1.35 if stage == "stage1" else 0.24
    losses = []
    for step in range(1, num_steps + 1, 2):
        done = step / num_steps
        losses.append(
            LossPoint(
                step=step,
                loss=start * (0.05 + 0.95 * math.exp(-4 * done)) * math.exp(rng.gauss(0, 0.16)),
                learning_rate=3e-3 * min(done / 0.05, 1) * (0.5 + 0.5 * math.cos(math.pi * done)),
                grad_norm=1.5 * math.exp(rng.gauss(0, 0.3)),
            )
        )
    metrics = Metrics(
        stage=stage,
        num_steps=num_steps,
        num_processes=NUM_PROCESSES,
        num_rows=num_steps * 64,
        num_rows_left_out_each_epoch=0,
        num_samples_seen=num_steps * 64,
        num_samples_expected=num_steps * 64,
        num_tokens_seen=num_steps * 640,
        num_parameters={name: size for name, (size, _) in MODULES.items()},
        num_trainable_parameters={name: size if trains[name] else 0 for name, (size, _) in MODULES.items()},
        tensors_changed={name: number if trains[name] else 0 for name, (_, number) in MODULES.items()},
        tensors_total={name: number for name, (_, number) in MODULES.items()},
        tensors_trained_but_unchanged=[],
        first_loss=losses[0].loss,
        last_loss=losses[-1].loss,
        losses=losses,
        step_time_s=StepTimes(median=0.412, p90=0.508),
        num_tokens_per_s=9871.5,
        peak_gpu_memory_gib=61.5,
        wall_time_s=102.4,
        resumes=[] if resumed_at is None else [Resume(resumed_at, loss_before=0.731, loss_after=0.726)],
        versions=VERSIONS,
        command=["python", "-m", "torch.distributed.run", "sft.py", "--system", "You are a helpful assistant."],
        signature="0123456789abcdef",
        checkpoint_sha256=hashlib.sha256(stage.encode()).hexdigest(),
        settings_sha256="",
    )
    return asdict(metrics)


def make_provenance(model: str, benchmark_md5: str) -> dict[str, Any]:
    """How one model was served and asked."""
    return asdict(
        provenance(
            model,
            checkpoint_sha256=hashlib.sha256(model.removesuffix("-shuffled").encode()).hexdigest(),
            benchmark_md5=benchmark_md5,
            versions={"evalscope": "1.14.1", "ms-vlmeval": "0.0.19", "ms-swift": "4.6.0"},
            settings={"temperature": 0, "max_tokens": 16, "reuse": False},
            wall_time_s=48.2,
            questions_per_s=8.3,
        )
    )


# The demo's, with fewer pictures; the models are those whose records are written.
CONFIG = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8"))
CONFIG["report"] = {"num_gallery_pictures": 6}

# Where the files lie, below the working directory.
LAYOUT = Layout(CONFIG)
GRAFT_TIME = LAYOUT.step_times["graft"]
TRAIN_LOCK = "envs/train.lock"


@dataclass
class ReportInputs:
    """The files of one run with one benchmark; `path` finds them by the names that the layout has for them."""

    directory: Path
    config: dict[str, Any]

    @property
    def layout(self) -> Layout:
        return Layout(self.config)

    @property
    def benchmark(self) -> str:
        return next(iter(self.layout.benchmarks))

    @property
    def output(self) -> Path:
        return self.path(LAYOUT.report)

    def path(self, name: str) -> Path:
        return self.directory / name

    @property
    def questions_path(self) -> Path:
        return self.path(self.layout.questions(self.benchmark))

    @property
    def scores_path(self) -> Path:
        return self.path(self.layout.scores(self.benchmark))

    @property
    def provenance_path(self) -> Path:
        return self.path(self.layout.scores_provenance(self.benchmark))

    @property
    def record_paths(self) -> dict[str, Path]:
        return {model: self.path(self.layout.records(self.benchmark, model)) for model in self.layout.models}

    @contextmanager
    def as_working_directory(self) -> Iterator[None]:
        """Inside, the files are where a run's programs look for them, the locks of its environments too."""
        with chdir(self.directory), pytest.MonkeyPatch.context() as patch:
            patch.setattr(layout_module, "ROOT", Path.cwd())
            yield

    def page(self, **changes: Any) -> str:
        """The report of these files; `changes` are of what was read from them."""
        self.accept_edits()
        with self.as_working_directory():
            return render(replace(read_inputs(Path(LAYOUT.effective_config), COMMIT), **changes))

    def read_json(self, name: str) -> Any:
        return json.loads(self.path(name).read_text(encoding="utf-8"))

    def write_text(self, name: str, text: str) -> None:
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_text(text, encoding="utf-8")

    def write_json(self, name: str, value: Any) -> None:
        """As the programs do: what they write for each other is sealed, the configuration is not."""
        if isinstance(value, dict) and name != LAYOUT.effective_config:
            is_of_a_table = name == self.layout.scores_provenance(self.benchmark)
            value = sealed(self.with_checksums(value) if is_of_a_table else value)
        self.write_text(name, json.dumps(value, indent=2))

    def with_checksums(self, provenance: dict[str, Any]) -> dict[str, Any]:
        """The provenance of a table with the checksums of the table and of the records as they are."""
        models = {
            model: {**about, "records_sha256": sha256_of_file(self.record_paths[model])}
            if model in self.record_paths
            else about
            for model, about in provenance["models"].items()
        }
        return {
            **provenance,
            "models": models,
            "scores_sha256": sha256_of_file(self.scores_path),
            "comparison_sha256": "0" * 64,  # no page shows that table
        }

    def accept_edits(self) -> None:
        """As if the programs had made the table and the records as they are now; a provenance that is broken stays so."""
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            name = self.layout.scores_provenance(self.benchmark)
            found = self.read_json(name)
            if sealed(found) == found and sealed(self.with_checksums(found)) != found:
                self.write_json(name, found)

    def change_json(self, name: str, **changes: Any) -> None:
        """Another content, sealed as well: not what an editor would leave."""
        self.write_json(name, {**self.read_json(name), **changes})

    def edit_json(self, name: str, **changes: Any) -> None:
        """As somebody does who edits the file by hand."""
        self.write_text(name, json.dumps({**self.read_json(name), **changes}, indent=2))

    def write_config(self) -> None:
        self.write_json(LAYOUT.effective_config, self.config)

    def read_records(self, model: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.record_paths[model].read_text(encoding="utf-8").split("\n") if line]

    def write_records(self, model: str, records: list[dict[str, Any]]) -> None:
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        self.write_text(self.layout.records(self.benchmark, model), "".join(lines))

    def write_scores(self) -> None:
        """The score table of the records as they are."""
        rows = [row for model in self.record_paths for row in score_rows(model, self.read_records(model))]
        with open(self.scores_path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def write_questions(self, questions: list[dict[str, str]], skills: dict[str, float], seed: int) -> None:
        """Benchmark, records and table of models with these skills."""
        self.questions_path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.questions_path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(questions[0]), delimiter="\t", lineterminator="\n")
            writer.writeheader()
            writer.writerows(questions)
        self.config["evaluate"]["models"] = list(skills)
        self.write_config()
        for model, skill in skills.items():
            rng = random.Random(f"{seed}:{model}")
            records = [answer(question, skill, rng) for question in questions]
            if model.endswith("-shuffled"):
                shown = [record["image_sha256"] for record in records]
                for record, other in zip(records, shown[1:] + shown[:1], strict=True):
                    record["image_sha256"] = other
            self.write_records(model, records)
        self.write_scores()
        md5 = hashlib.md5(self.questions_path.read_bytes()).hexdigest()
        provenance: dict[str, Any] = {"models": {model: make_provenance(model, md5) for model in skills}}
        self.write_json(self.layout.scores_provenance(self.benchmark), provenance)

    def set_times(self) -> None:
        """Gives every input the same time of change."""
        for path in self.directory.rglob("*"):
            os.utime(path, (CHANGED_AT, CHANGED_AT))


def donor_manifest(role: str) -> dict[str, Any]:
    """A donor's manifest."""
    return {
        "role": role,
        "source": {"kind": "demo"},
        "dir": f"resources/donors/demo-{role}-seed0",
        "files": [
            {
                "name": "config.json",
                "num_bytes": 1412,
                "modified_ns": 1,
                "sha256": hashlib.sha256(role.encode()).hexdigest(),
            },
            {
                "name": "model.safetensors",
                "num_bytes": 2_431_552,
                "modified_ns": 2,
                "sha256": hashlib.sha256(b"w").hexdigest(),
            },
        ],
    }


def build(
    directory: Path,
    num_questions: int = 40,
    num_steps: int = 60,
    seed: int = 0,
    benchmarks: list[Any] | None = None,
) -> ReportInputs:
    """Writes a whole set of inputs into `directory`."""
    inputs = ReportInputs(directory, copy.deepcopy(CONFIG))
    if benchmarks:
        inputs.config["evaluate"]["benchmarks"] = benchmarks
    for stage, resumed_at in zip(STAGES, (None, num_steps // 2), strict=True):
        inputs.write_json(LAYOUT.metrics(stage), make_metrics(stage, num_steps, seed, resumed_at))
        inputs.write_json(LAYOUT.dataset_check(stage), asdict(DATASET_CHECK))
    inputs.write_text(LAYOUT.ledger, ledger_text())
    inputs.write_json(LAYOUT.fidelity, FIDELITY)
    for role in ("vl", "llm"):
        inputs.write_json(LAYOUT.donor_manifest(role), donor_manifest(role))
    pins = "".join(f"{name}=={version} \\\n    --hash=sha256:00\n" for name, version in VERSIONS.items())
    for role in ("workflow", *LAYOUT.roles):
        inputs.write_text(f"envs/{role}.lock", "# made by uv\n" + pins)
    for time_path in LAYOUT.step_times.values():
        inputs.write_text(time_path, "s\th:m:s\tmax_rss\n754.0\t0:12:34\t52.1\n")
    inputs.write_questions(make_questions(num_questions, seed), SKILLS, seed)
    inputs.set_times()
    return inputs
