"""How far the plan is from trainings that others have published: memory of a GPU, and the MFU that each published time implies.

By hand: .venv/bin/python benchmarks/plan.py            # writes benchmarks/results/plan.md
"""

import argparse
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.common.errors import run_program  # noqa: E402
from scripts.common.reading import object_from  # noqa: E402
from scripts.plan.flop import Row, Trained, row_flop  # noqa: E402
from scripts.plan.gpus import known_gpus  # noqa: E402
from scripts.plan.hours import MFU_RANGE  # noqa: E402
from scripts.plan.memory import GIB, Hardware, Sharding, memory_of  # noqa: E402
from scripts.plan.stacks import Aligner, Model, Stack  # noqa: E402

PUBLISHED_PATH = ROOT / "benchmarks/published_training.yaml"


@dataclass(frozen=True)
class Published:
    """A training as its source describes it; of a step or a row, as the names say."""

    name: str
    source: str
    language: Stack
    trains: list[str]
    gpu: str
    num_gpus: int
    sharding: str
    tokens_a_row: float
    tower: Stack | None = None
    aligner: Aligner | None = None
    is_checkpointed: bool = True
    is_tower_checkpointed: bool = True
    has_fused_loss: bool = False
    patches_a_row: float = 0.0
    rows_a_gpu: int = 1
    tokens_a_gpu: float | None = None
    num_rows: int | None = None
    num_rows_a_step: int | None = None
    memory_gib: float | None = None
    hours: float | None = None
    seconds_a_step: float | None = None
    tokens_a_second_and_gpu: float | None = None
    assumed: str = ""

    @property
    def model(self) -> Model:
        return Model(self.language, self.tower, self.aligner)

    @property
    def trained(self) -> Trained:
        parts = {part: part in self.trains for part in ("tower", "aligner", "language")}
        return Trained(**parts, is_checkpointed=self.is_checkpointed, is_tower_checkpointed=self.is_tower_checkpointed)


@dataclass(frozen=True)
class Compared:
    """The plan beside the published figures; None where none is published."""

    published: Published
    planned_gib: float | None
    implied_mfu: float | None

    @property
    def memory_error(self) -> float | None:
        if self.planned_gib is None or self.published.memory_gib is None:
            return None
        return self.planned_gib / self.published.memory_gib - 1


def read_published(path: Path) -> list[Published]:
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["trainings"]
    return [object_from(Published, entry, path) for entry in entries]


def implied_mfu(training: Published) -> float | None:
    """Of the published time."""
    flop = row_flop(training.model, Row(training.tokens_a_row, training.patches_a_row), training.trained).model
    peak = known_gpus()[training.gpu].peak_tflop_s * 1e12
    if training.hours and training.num_rows:
        return flop * training.num_rows / (training.num_gpus * peak * training.hours * 3600)
    if training.seconds_a_step and training.num_rows_a_step:
        return flop * training.num_rows_a_step / (training.num_gpus * peak * training.seconds_a_step)
    if training.tokens_a_second_and_gpu:
        return flop / training.tokens_a_row * training.tokens_a_second_and_gpu / peak
    return None


def planned_gib(training: Published) -> float:
    tokens = training.tokens_a_gpu or training.rows_a_gpu * training.tokens_a_row
    batch = Row(tokens, training.rows_a_gpu * training.patches_a_row)
    hardware = Hardware(training.num_gpus, Sharding(training.sharding), has_fused_loss=training.has_fused_loss)
    return memory_of(training.model, batch, training.trained, hardware).total / GIB


def compare(training: Published) -> Compared:
    return Compared(training, planned_gib(training) if training.memory_gib else None, implied_mfu(training))


def median_memory_error(compared: list[Compared]) -> float:
    return statistics.median(abs(each.memory_error) for each in compared if each.memory_error is not None)


def share_of_times_covered(compared: list[Compared]) -> float:
    """How many of the published times lie within the plan's range."""
    mfus = [each.implied_mfu for each in compared if each.implied_mfu is not None]
    return sum(MFU_RANGE[0] <= mfu <= MFU_RANGE[1] for mfu in mfus) / len(mfus)


def page(compared: list[Compared]) -> Iterator[str]:
    yield "# The plan against published trainings"
    yield ""
    yield (
        f"Memory of a GPU: median error {median_memory_error(compared):.0%}. The plan's range of MFU, {MFU_RANGE[0]:.0%} to "
        f"{MFU_RANGE[1]:.0%}, holds {share_of_times_covered(compared):.0%} of the published times. Made by "
        "`benchmarks/plan.py` from `benchmarks/published_training.yaml`."
    )
    yield ""
    yield "| training | GiB published | GiB planned | error | implied MFU | assumed | source |"
    yield "|---|---|---|---|---|---|---|"
    for each in compared:
        memory = ["–", "–", "–"]
        if each.planned_gib is not None and each.memory_error is not None:
            memory = [f"{each.published.memory_gib:.1f}", f"{each.planned_gib:.1f}", f"{each.memory_error:+.0%}"]
        mfu = "–" if each.implied_mfu is None else f"{each.implied_mfu:.0%}"
        cells = [each.published.name, *memory, mfu, each.published.assumed or "–", each.published.source]
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--published", type=Path, default=PUBLISHED_PATH)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/plan.md")
    arguments = parser.parse_args()
    text = "\n".join(page([compare(training) for training in read_published(arguments.published)])) + "\n"
    arguments.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    run_program(main)
