"""What came out of each run of the study: one row a model, read from the scores and trainings of all runs."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.common.input_files import read_json
from scripts.graft.fidelity import read_fidelity
from study import design


@dataclass(frozen=True)
class Row:
    """One model of one run: `donor`, `graft`, `stage1` or `stage2`; None where a figure does not apply."""

    size: str
    arm: str
    variant: str
    seed: int
    model: str
    num_steps: int | None
    pictures: float | None
    pictures_trained: float | None
    pictures_untrained: float | None
    shuffled: float | None
    words: float
    perplexity: float
    kl_from_donor_nats: float | None
    last_loss: float | None


def row_of(run: design.Run, model: str, score: Mapping[str, Any], **more: Any) -> Row:
    """A row from a score file and what else is known."""
    pictures, shuffled = score.get("pictures", {}), score.get("shuffled", {})
    known = {"num_steps": None, "kl_from_donor_nats": None, "last_loss": None} | more
    return Row(
        run.size,
        run.arm,
        run.variant,
        run.seed,
        model,
        pictures=pictures.get("overall"),
        pictures_trained=pictures.get("trained"),
        pictures_untrained=pictures.get("untrained"),
        shuffled=shuffled.get("overall"),
        words=score["words"],
        perplexity=score["perplexity"],
        **known,
    )


def rows_of(run: design.Run, results_dir: Path) -> Iterator[Row]:
    """The four models of a run, in the order in which they came about."""
    yield row_of(run, "donor", read_json(run.path(results_dir, design.PAIR) / "donor.score.json"))
    graft_dir = run.path(results_dir, design.GRAFT)
    kl = read_fidelity(graft_dir / "fidelity.json").kl_mean_nats
    yield row_of(run, "graft", read_json(graft_dir.with_suffix(".score.json")), kl_from_donor_nats=kl)
    for stage, pattern in (("stage1", design.STAGE1), ("stage2", design.STAGE2)):
        stage_dir = run.path(results_dir, pattern)
        metrics = read_json(stage_dir / "metrics.json")
        training = {"num_steps": metrics["num_steps"], "last_loss": metrics["last_loss"]}
        yield row_of(run, stage, read_json(stage_dir / "score.json"), **training)


def losses_of(run: design.Run, results_dir: Path) -> list[float]:
    """The losses of stage 1, then those of stage 2, one a step."""
    stages = (run.path(results_dir, pattern) / "metrics.json" for pattern in (design.STAGE1, design.STAGE2))
    return [point["loss"] for path in stages for point in read_json(path)["losses"]]


@dataclass(frozen=True)
class Outcomes:
    """All rows, to be asked for one figure by seed."""

    rows: Sequence[Row]

    def by_seed(self, size: str, arm: str, variant: str, model: str, column: str) -> dict[int, float]:
        """One figure of one model of an arm's variant, seed by seed."""
        return {
            row.seed: getattr(row, column)
            for row in self.rows
            if (row.size, row.arm, row.variant, row.model) == (size, arm, variant, model)
        }


def read_outcomes(config: Mapping[str, Any], results_dir: Path) -> Outcomes:
    """Of all runs; what runs share stands in each of them."""
    return Outcomes([row for run in design.runs(config) for row in rows_of(run, results_dir)])


def csv_text(rows: Sequence[Row]) -> str:
    """All rows; figures with four digits behind the point, empty where they do not apply."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(vars(rows[0]))
    for row in rows:
        writer.writerow([f"{value:.4f}" if isinstance(value, float) else value for value in vars(row).values()])
    return buffer.getvalue()
