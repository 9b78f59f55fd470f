"""Reading what the other programs wrote, each file checked for the fields that the page needs.

A file that is missing, cut off or lacks a field raises UserError with its name: a page must not be made from half of
the inputs.
"""

import csv
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError
from common.files import read_json, sha256_of_file

SCORE_COLUMNS = (
    "model", "split", "group", "name", "num_questions", "num_correct", "accuracy", "ci95_low", "ci95_high",
    "num_unparsed", "num_truncated", "num_seeds", "metric",
)  # fmt: skip
SCORE_COUNTS = ("num_questions", "num_correct", "num_unparsed", "num_truncated", "num_seeds")
SCORE_SHARES = ("accuracy", "ci95_low", "ci95_high")
LEDGER_COLUMNS = ("name", "donor", "policy", "bytes", "reason")
# In the order of the page.
LEDGER_POLICIES = ("copied", "refitted", "initialised", "dropped")
LEDGER_DONORS = ("llm", "vl", "")
SCORE_GROUPS = ("overall", "discipline", "subject")
RECORD_STATUSES = ("answered", "unparsed", "truncated")
# Packages of a lock that a reader looks for first.
KEY_PACKAGES = (
    "ms-swift", "transformers", "torch", "torchvision", "accelerate", "deepspeed", "flash-attn", "modelscope",
    "vllm", "evalscope", "ms-vlmeval", "snakemake", "pandas", "numpy", "pillow",
)  # fmt: skip

_HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Score:
    """One row of the score table."""

    model: str
    split: str
    group: str
    name: str
    metric: str
    num_questions: int
    num_correct: int
    num_unparsed: int
    num_truncated: int
    num_seeds: int
    accuracy: float
    ci95_low: float
    ci95_high: float


@dataclass(frozen=True)
class Record:
    """One question as one model answered it for one seed."""

    index: str
    split: str
    discipline: str | None
    subject: str | None
    question: str
    options: dict[str, str]
    answer: str
    prediction: str
    extracted: str | None
    score: float
    correct: bool
    metric: str
    status: str
    seed: int
    image_sha256: str | None  # None: no picture was shown


@dataclass(frozen=True)
class LossPoint:
    """What the trainer logged at one step; a value that it did not log is None."""

    step: int
    loss: float
    learning_rate: float | None
    grad_norm: float | None


@dataclass(frozen=True)
class Resume:
    """Training went on from a checkpoint at `step`; the losses logged just before and after."""

    step: int
    loss_before: float | None
    loss_after: float | None


@dataclass(frozen=True)
class Metrics:
    """What one training stage reports of itself."""

    stage: str
    num_steps: int
    num_samples_seen: int
    num_samples_expected: int
    num_trainable_parameters: dict[str, int]
    num_parameters: dict[str, int]
    tensors_changed: dict[str, int]
    tensors_total: dict[str, int]
    first_loss: float | None
    last_loss: float | None
    losses: list[LossPoint]
    step_time_median_s: float
    step_time_p90_s: float
    num_tokens_per_s: float | None
    peak_gpu_memory_gib: float | None
    wall_time_s: float
    resumes: list[Resume]
    versions: dict[str, str]
    command: list[str]
    checkpoint_sha256: str


@dataclass(frozen=True)
class Dataset:
    """The training set of a stage, as its check found it."""

    stage: str
    num_rows: int
    num_pictures: int
    sha256: str


@dataclass(frozen=True)
class Lock:
    """A lock file: its hash, how many packages it pins, and the ones that a reader looks for."""

    name: str
    sha256: str
    num_packages: int
    key_versions: dict[str, str]


@dataclass(frozen=True)
class Donor:
    """One of the two models that the graft was made from."""

    role: str
    name: str
    revision: str | None
    files: list[tuple[str, int, str]]

    @property
    def num_bytes(self) -> int:
        return sum(num_bytes for _, num_bytes, _ in self.files)


@dataclass(frozen=True)
class Fidelity:
    """How the graft compares with its language donor on text."""

    bit_equal: bool
    values: dict[str, Any]


@dataclass(frozen=True)
class LedgerSum:
    """The tensors with one policy from one donor: how many, how many bytes, and the kinds of reason."""

    policy: str
    donor: str
    num_tensors: int
    num_bytes: int
    reasons: list[str]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's score table, its records by model and where they came from."""

    name: str
    tsv_path: Path
    scores_path: Path
    scores: list[Score]
    records: dict[str, list[Record]]
    provenance: dict[str, dict[str, Any]]


def require(value: Any, key: str, kinds: type | tuple[type, ...], where: str) -> Any:
    """`value[key]` of one of `kinds`; UserError saying where it was looked for otherwise."""
    names = " or ".join(
        "null" if kind is type(None) else kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,))
    )
    remedy = "make this file again with the program of this version"
    if not isinstance(value, dict) or key not in value:
        raise UserError(f"{where}: no `{key}` found; expected {names}; {remedy}")
    found = value[key]
    if not isinstance(found, kinds) or (isinstance(found, bool) and bool not in _as_tuple(kinds)):
        raise UserError(f"{where}: `{key}` is {found!r}; expected {names}; {remedy}")
    return found


def _as_tuple(kinds: type | tuple[type, ...]) -> tuple[type, ...]:
    return kinds if isinstance(kinds, tuple) else (kinds,)


def _lines(path: Path, kind: str, *, written_by_a_program: bool = True) -> Iterator[tuple[int, str]]:
    """Numbered lines of a text file; UserError when it is absent, no UTF-8, empty, or its last line has no end."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: not found; expected {kind}; run the rule that makes it") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error}); expected {kind}; make it again") from None
    if not text.strip():
        raise UserError(f"{path}: empty; expected {kind}; make it again")
    if written_by_a_program and not text.endswith("\n"):
        raise UserError(f"{path}: its last line has no end; expected {kind}; make it again, it was probably cut off")
    # Not splitlines(): a question may hold U+2028 and the like, which JSON leaves as they are.
    yield from ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def read_table(path: Path, columns: tuple[str, ...], delimiter: str, kind: str) -> list[dict[str, str]]:
    """Rows of a delimited file that has at least `columns`; UserError naming the row that is cut short."""
    lines = [line for _, line in _lines(path, kind)]
    reader = csv.reader(lines, delimiter=delimiter)
    header = next(reader)
    if missing := [name for name in columns if name not in header]:
        raise UserError(
            f"{path}: no column `{missing[0]}` found (there are: {', '.join(header)}); "
            f"expected {kind}; make it again with the program of this version"
        )
    rows = []
    for number, cells in enumerate(reader, start=2):
        if len(cells) != len(header):
            raise UserError(
                f"{path}: row {number} has {len(cells)} fields; expected {len(header)}; "
                "make it again, it was probably cut off"
            )
        rows.append(dict(zip(header, cells, strict=True)))
    return rows


def _number(row: dict[str, str], column: str, kind: type, where: str) -> Any:
    try:
        value = kind(row[column])
    except ValueError:
        raise UserError(f"{where}: {column} is {row[column]!r}; expected a number; make it again") from None
    if not math.isfinite(value) or value < 0:
        raise UserError(f"{where}: {column} is {row[column]}; expected a number from 0 on; make it again")
    return value


def read_scores(path: Path) -> list[Score]:
    """The rows of `eval/<benchmark>.csv`, each checked against itself."""
    scores = []
    rows = read_table(path, SCORE_COLUMNS, ",", "a score table")
    for number, row in enumerate(rows, start=2):
        where = f"{path}: row {number}"
        counts = [_number(row, name, int, where) for name in SCORE_COUNTS]
        shares = [_number(row, name, float, where) for name in SCORE_SHARES]
        score = Score(row["model"], row["split"], row["group"], row["name"], row["metric"], *counts, *shares)
        if score.group not in SCORE_GROUPS:
            raise UserError(f"{where}: group is {score.group!r}; expected one of {', '.join(SCORE_GROUPS)}")
        num_answers = score.num_questions * score.num_seeds
        if not 0 < num_answers >= score.num_correct:
            raise UserError(
                f"{where}: {score.num_correct} correct of {num_answers} answers; "
                "expected at least one answer and no more correct ones than that; make the table again"
            )
        # The table is written with 6 decimals. Other metrics give a score to answers that are not wholly correct.
        if score.metric == "accuracy" and abs(score.accuracy - score.num_correct / num_answers) > 1e-6:
            raise UserError(
                f"{where}: accuracy {score.accuracy} contradicts {score.num_correct} correct of "
                f"{num_answers}; make the table again"
            )
        if not score.ci95_low - 1e-6 <= score.accuracy <= score.ci95_high + 1e-6:
            raise UserError(
                f"{where}: accuracy {score.accuracy} lies outside its interval {score.ci95_low}–"
                f"{score.ci95_high}; make the table again"
            )
        scores.append(score)
    if not any(score.group == "overall" for score in scores):
        raise UserError(f"{path}: no row with group `overall` found; make the table again")
    return scores


def read_records(path: Path) -> list[Record]:
    """The records of one model on one benchmark; UserError naming the line that is broken."""
    records = []
    for number, line in _lines(path, "one JSON record per question"):
        where = f"{path}: line {number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{where}: not valid JSON ({error}); evaluate this model again, the file was probably cut off"
            ) from None
        text = (str, type(None))
        record = Record(
            index=require(value, "index", str, where),
            split=require(value, "split", str, where),
            discipline=require(value, "discipline", text, where),
            subject=require(value, "subject", text, where),
            question=require(value, "question", str, where),
            options=require(value, "options", dict, where),
            answer=require(value, "answer", str, where),
            prediction=require(value, "prediction", str, where),
            extracted=require(value, "extracted", text, where),
            score=float(require(value, "score", (int, float), where)),
            correct=require(value, "correct", bool, where),
            metric=require(value, "metric", str, where),
            status=require(value, "status", str, where),
            seed=require(value, "seed", int, where),
            image_sha256=require(value, "image_sha256", text, where),
        )
        if record.status not in RECORD_STATUSES:
            raise UserError(
                f"{where}: status is {record.status!r}; expected one of {', '.join(RECORD_STATUSES)}; "
                "evaluate this model again"
            )
        if not 0 <= record.score <= 1 or record.correct != (record.score == 1):
            raise UserError(
                f"{where}: question {record.index} has the score {record.score} and is said to be "
                f"{'correct' if record.correct else 'not correct'}; expected a score from 0 to 1, and correct for 1 alone; "
                "evaluate this model again"
            )
        if record.status == "unparsed" and record.correct:
            raise UserError(f"{where}: question {record.index} is both unparsed and correct; evaluate this model again")
        records.append(record)
    if repeated := _first_repeated([f"{record.index} (seed {record.seed})" for record in records]):
        raise UserError(f"{path}: question {repeated} is there twice; evaluate this model again")
    return records


def of_first_seed(records: list[Record]) -> dict[str, Record]:
    """One record a question, by its index: with several seeds, that of the first."""
    first = min(record.seed for record in records)
    return {record.index: record for record in records if record.seed == first}


def _first_repeated(names: list[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _integers(value: Any, key: str, where: str) -> dict[str, int]:
    found = require(value, key, dict, where)
    return {name: require(found, name, int, f"{where}: {key}") for name in found}


def read_metrics(stage: str, path: Path) -> Metrics:
    """The metrics of one stage; UserError when they are of another stage or their steps run backwards."""
    value, where = read_json(path), str(path)
    if (found := require(value, "stage", str, where)) != stage:
        raise UserError(f"{path}: metrics of `{found}` found; expected those of `{stage}`; pass the right file")
    number, optional = (int, float), (int, float, type(None))
    losses = [
        LossPoint(
            require(point, "step", int, f"{where}: losses"),
            float(require(point, "loss", number, f"{where}: losses")),
            point.get("learning_rate"),
            point.get("grad_norm"),
        )
        for point in require(value, "losses", list, where)
    ]
    for before, after in itertools.pairwise(losses):
        if after.step <= before.step:
            raise UserError(
                f"{path}: step {after.step} follows step {before.step} in `losses`; expected rising steps; "
                "make the metrics again from the stage's log"
            )
    step_time = require(value, "step_time_s", dict, where)
    return Metrics(
        stage=stage,
        num_steps=require(value, "num_steps", int, where),
        num_samples_seen=require(value, "num_samples_seen", int, where),
        num_samples_expected=require(value, "num_samples_expected", int, where),
        num_trainable_parameters=_integers(value, "num_trainable_parameters", where),
        num_parameters=_integers(value, "num_parameters", where),
        tensors_changed=_integers(value, "tensors_changed", where),
        tensors_total=_integers(value, "tensors_total", where),
        first_loss=require(value, "first_loss", optional, where),
        last_loss=require(value, "last_loss", optional, where),
        losses=losses,
        step_time_median_s=float(require(step_time, "median", number, f"{where}: step_time_s")),
        step_time_p90_s=float(require(step_time, "p90", number, f"{where}: step_time_s")),
        num_tokens_per_s=require(value, "num_tokens_per_s", optional, where),
        peak_gpu_memory_gib=require(value, "peak_gpu_memory_gib", optional, where),
        wall_time_s=float(require(value, "wall_time_s", number, where)),
        resumes=[
            Resume(
                require(resume, "step", int, f"{where}: resumes"),
                require(resume, "loss_before", optional, f"{where}: resumes"),
                require(resume, "loss_after", optional, f"{where}: resumes"),
            )
            for resume in require(value, "resumes", list, where)
        ],
        versions={name: str(version) for name, version in require(value, "versions", dict, where).items()},
        command=[str(word) for word in require(value, "command", list, where)],
        checkpoint_sha256=require(value, "checkpoint_sha256", str, where),
    )


def read_fidelity(path: Path) -> Fidelity:
    """What the fidelity check measured."""
    value = read_json(path)
    bit_equal = require(value, "bit_equal", bool, str(path))
    return Fidelity(bit_equal, {key: found for key, found in value.items() if key != "bit_equal"})


def read_ledger(path: Path) -> list[LedgerSum]:
    """The graft's ledger, summed by policy and donor: what was kept first, what was left out last."""
    rows_of: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for number, row in enumerate(read_table(path, LEDGER_COLUMNS, "\t", "the graft's ledger"), start=2):
        where = f"{path}: row {number}"
        if row["policy"] not in LEDGER_POLICIES:
            raise UserError(
                f"{where}: policy is {row['policy']!r}; expected one of {', '.join(LEDGER_POLICIES)}; graft again"
            )
        if row["donor"] not in LEDGER_DONORS:
            raise UserError(f"{where}: donor is {row['donor']!r}; expected vl, llm or nothing; graft again")
        num_bytes = _number(row, "bytes", int, where)
        rows_of.setdefault((row["policy"], row["donor"]), []).append((num_bytes, row["reason"]))
    if not rows_of:
        raise UserError(f"{path}: no tensor found below the header; graft again")
    return [
        LedgerSum(
            policy,
            donor,
            num_tensors=len(rows),
            num_bytes=sum(num_bytes for num_bytes, _ in rows),
            reasons=list(dict.fromkeys(reason.partition(";")[0] for _, reason in rows if reason)),
        )
        for (policy, donor), rows in sorted(rows_of.items(), key=lambda item: _ledger_order(*item[0]))
    ]


def _ledger_order(policy: str, donor: str) -> tuple[int, int]:
    return LEDGER_POLICIES.index(policy), LEDGER_DONORS.index(donor)


def read_dataset_check(stage: str, path: Path) -> Dataset:
    """The check's report on a stage's training set."""
    value, where = read_json(path), str(path)
    return Dataset(
        stage,
        require(value, "num_rows", int, where),
        require(value, "num_pictures", int, where),
        require(value, "sha256", str, where),
    )


def read_donor(path: Path) -> Donor:
    """A donor's manifest."""
    value, where = read_json(path), str(path)
    source = require(value, "source", dict, where)
    name = source.get("id") or Path(source.get("path") or require(value, "dir", str, where)).name
    files = [
        (
            require(entry, "name", str, f"{where}: files"),
            require(entry, "num_bytes", int, f"{where}: files"),
            require(entry, "sha256", str, f"{where}: files"),
        )
        for entry in require(value, "files", list, where)
    ]
    revision = source.get("revision")
    return Donor(require(value, "role", str, where), str(name), str(revision) if revision else None, files)


def read_step_time(path: Path) -> float:
    """Seconds of a step's last run, from the file of Snakemake's `benchmark` directive."""
    rows = read_table(path, ("s",), "\t", "a benchmark of Snakemake")
    if len(rows) != 1:
        raise UserError(
            f"{path}: {len(rows)} rows found; expected one below the header; delete it and run its step again"
        )
    return float(_number(rows[0], "s", float, f"{path}: row 2"))


def read_lock(path: Path) -> Lock:
    """A lock file as `uv pip compile` writes it."""
    text = "\n".join(line for _, line in _lines(path, "a lock file", written_by_a_program=False))
    pins = dict(re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", text, flags=re.MULTILINE))
    return Lock(
        name=path.name,
        sha256=sha256_of_file(path),
        num_packages=len(pins),
        key_versions={name: pins[name] for name in KEY_PACKAGES if name in pins},
    )


def read_config(path: Path) -> dict[str, Any]:
    """The effective config, YAML or JSON."""
    text = "\n".join(line for _, line in _lines(path, "the effective config", written_by_a_program=False))
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: neither YAML nor JSON ({reason}); make it again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: {type(value).__name__} found; expected keys and values; make it again")
    return value


def md5_of_file(path: Path) -> str:
    """md5 of the file's bytes: benchmarks are published with it."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
