"""The result in words: the best stage beside chance, its controls and the parent; and warnings."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from scripts.evaluate.intervals import question_means
from scripts.evaluate.model_names import CONTROLS, base_of, control_of, is_control, pipeline_order
from scripts.evaluate.paired_comparison import PairedComparison, compare
from scripts.evaluate.records import Record
from scripts.evaluate.scores import Benchmark, Score
from scripts.graft.ledger import LedgerSum
from scripts.report.numbers import count, interval, percent, size
from scripts.train.metrics import Metrics

# Models that the pipeline did not make: shown, but never the result.
NOT_MADE_HERE = ("parent",)


@dataclass(frozen=True)
class SplitTable:
    """One split of a benchmark: overall rows in pipeline order, controls apart, and what guessing would give."""

    split: str
    rows: list[Score]
    controls: list[Score]
    chance: float | None
    num_without_options: int

    @property
    def num_questions(self) -> int:
        return max(score.num_questions for score in [*self.rows, *self.controls])

    @property
    def metric(self) -> str:
        return next(score.metric for score in [*self.rows, *self.controls])

    @property
    def num_seeds(self) -> int:
        return max(score.num_seeds for score in [*self.rows, *self.controls])


@dataclass(frozen=True)
class Cell:
    """One accuracy in a table of groups."""

    accuracy: float
    ci95_low: float
    ci95_high: float


@dataclass(frozen=True)
class GroupTable:
    """Accuracy by discipline or subject of one split: a row per name, a column per model."""

    split: str
    group: str
    models: list[str]
    rows: list[tuple[str, int, list[Cell | None]]]


@dataclass(frozen=True)
class PairTable:
    """Two models of one split at a time, question by question; the controls only beside their own models."""

    split: str
    rows: list[tuple[str, str, PairedComparison]]


@dataclass(frozen=True)
class Headline:
    """The result in one sentence, and the sentences that compare it."""

    result: str
    context: list[str]


def chance_level(records: Sequence[Record]) -> tuple[float | None, int]:
    """Expected accuracy of guessing, and how many questions have no options to guess from (they count as 0).

    None when no question has options.
    """
    num_options = [len(record.options) for record in records]
    with_options = [number for number in num_options if number > 0]
    if not with_options:
        return None, len(num_options)
    return sum(1 / number for number in with_options) / len(num_options), len(num_options) - len(with_options)


def split_tables(benchmark: Benchmark) -> list[SplitTable]:
    """The overall rows by split; the split with the most questions first."""
    tables = []
    for split in sorted({score.split for score in benchmark.scores}):
        overall = sorted(
            (score for score in benchmark.scores if score.group == "overall" and score.split == split),
            key=lambda score: pipeline_order(score.model),
        )
        if not overall:
            continue
        records = next(iter(benchmark.records.values()))
        chance, num_without = chance_level([record for record in records if record.split == split])
        rows = [score for score in overall if not is_control(score.model)]
        controls = [score for score in overall if is_control(score.model)]
        tables.append(SplitTable(split, rows, controls, chance, num_without))
    return sorted(tables, key=lambda table: (-table.num_questions, table.split))


def group_tables(benchmark: Benchmark) -> list[GroupTable]:
    """Tables by discipline and by subject, for each split that has them."""
    tables = []
    for split in (table.split for table in split_tables(benchmark)):
        for group in ("discipline", "subject"):
            scores = [score for score in benchmark.scores if score.split == split and score.group == group]
            models = sorted({score.model for score in scores}, key=pipeline_order)
            by_place = {(score.name, score.model): score for score in scores}
            rows = []
            for name in sorted({score.name for score in scores}):
                found = [by_place.get((name, model)) for model in models]
                cells = [Cell(s.accuracy, s.ci95_low, s.ci95_high) if s else None for s in found]
                rows.append((name, max(s.num_questions for s in found if s), cells))
            if rows:
                tables.append(GroupTable(split, group, models, rows))
    return tables


def pair_tables(benchmark: Benchmark) -> list[PairTable]:
    """A table for each split, in the order of the score tables; none where there is nothing to compare."""
    models = sorted(benchmark.records, key=pipeline_order)
    pairs = [pair for pair in itertools.combinations(models, 2) if _is_worth_comparing(*pair)]
    tables = []
    for split in (table.split for table in split_tables(benchmark)):
        right = {
            model: question_means((record.index, record.score) for record in records if record.split == split)
            for model, records in benchmark.records.items()
        }
        rows = [
            (first, second, compare(list(right[first].values()), [right[second][index] for index in right[first]]))
            for first, second in pairs
        ]
        if rows:
            tables.append(PairTable(split, rows))
    return tables


def _is_worth_comparing(first: str, second: str) -> bool:
    controls = [model for model in (first, second) if is_control(model)]
    return not controls or (len(controls) == 1 and base_of(first) == base_of(second))


def best_row(rows: Sequence[Score]) -> Score | None:
    """The most accurate row that the pipeline made, the later one of equals; None when there is none."""
    made = [score for score in rows if score.model not in NOT_MADE_HERE]
    return max(made, key=lambda score: (score.accuracy, _place(score)), default=None)


def _place(score: Score) -> tuple[bool, int, str]:
    return pipeline_order(score.model)


def _result(score: Score, where: str) -> str:
    low_high = interval(score.ci95_low, score.ci95_high)
    questions = f"{count(score.num_questions)} {where} questions"
    if score.metric == "accuracy":
        result = f"{score.model} answers {percent(score.accuracy)} of {questions} correctly"
    else:
        result = f"{score.model} scores {percent(score.accuracy)} ({score.metric}) on {questions}"
    sampled = f", mean of {score.num_seeds} seeds" if score.num_seeds > 1 else ""
    return f"{result} (95\u202f% interval {low_high}{sampled})."


def _with_interval(score: Score) -> str:
    low_high = interval(score.ci95_low, score.ci95_high)
    return f"{percent(score.accuracy)} (95\u202f% interval {low_high})"


def headline(benchmark: Benchmark) -> Headline:
    """The best row of the benchmark's largest split beside chance, its control and the parent."""
    tables = split_tables(benchmark)
    table = tables[0]
    where = f"{benchmark.name} ({table.split})" if len(tables) > 1 else benchmark.name
    best = best_row(table.rows)
    parent = next((score for score in table.rows if score.model in NOT_MADE_HERE), None)
    if best is None:
        only = (table.rows or table.controls)[0]
        return Headline(
            _result(only, where),
            ["The table holds no model that this pipeline made."],
        )
    result = _result(best, where)
    context = []
    if table.chance is None:
        context.append("The questions have no options, so there is no chance level to compare with.")
    elif best.ci95_low > table.chance:
        context.append(f"Guessing would give {percent(table.chance)}.")
    else:
        context.append(
            f"Guessing would give {percent(table.chance)}: this result does not differ from guessing, or is below it."
        )
    context += _control_sentences(best, table.controls)
    if parent is not None:
        context.append(
            f"The parent model, in the same harness, reaches {_with_interval(parent)}{_apart(best, parent)}."
        )
    last = max((score for score in table.rows if score.model not in NOT_MADE_HERE), key=_place)
    if last is not best:
        context.append(f"It is the best row, not the last: {last.model} reaches {_with_interval(last)}.")
    return Headline(result, context)


def _apart(best: Score, parent: Score) -> str:
    if best.ci95_low > parent.ci95_high:
        return ", clearly less"
    if best.ci95_high < parent.ci95_low:
        return ", clearly more"
    return "; the intervals overlap"


def _control_sentences(best: Score, controls: Sequence[Score]) -> list[str]:
    """One for each control of the best row, or one that says that there is none."""
    own = [score for score in controls if base_of(score.model) == best.model]
    if own:
        return [_control_sentence(best, control) for control in own]
    if not controls:
        return [
            "No control with shuffled pictures or without any was run, so nothing here shows that the pictures were used."
        ]
    others = ", ".join(dict.fromkeys(base_of(score.model) for score in controls))
    return [f"Controls were run for {others} only, so nothing here shows that {best.model} used the pictures."]


def _control_sentence(best: Score, control: Score) -> str:
    done = CONTROLS[control_of(control.model)].capitalize()
    if best.ci95_low > control.ci95_high:
        return f"{done}, it falls to {_with_interval(control)}, so its answers come from the pictures."
    if best.accuracy > control.accuracy:
        return (
            f"{done}, it falls to {_with_interval(control)}; the intervals overlap, so this does not show that the pictures "
            "were used."
        )
    return f"{done}, it reaches {_with_interval(control)}, no less: nothing here shows that the pictures were used."


def warnings(
    benchmarks: Sequence[Benchmark], stages: Sequence[Metrics], ledger: Sequence[LedgerSum], is_dirty: bool
) -> list[str]:
    """What a reader should know, though it does not stop the page."""
    found = []
    if is_dirty:
        found.append("The code had uncommitted changes, which the commit below does not hold.")
    for part in ledger:
        if part.policy == "dropped" and part.donor == "llm":
            found.append(
                f"The graft left out {count(part.num_tensors)} tensors of the language donor ({size(part.num_bytes)})."
            )
    for metrics in stages:
        found += _stage_warnings(metrics)
    for benchmark in benchmarks:
        for table in split_tables(benchmark):
            for score in table.rows:
                num_answers = score.num_questions * score.num_seeds
                if (num_lost := score.num_unparsed + score.num_truncated) * 20 > num_answers:
                    found.append(
                        f"{benchmark.name}, {score.model}: {count(num_lost)} of {count(num_answers)} answers "
                        "were unparsed or cut off; its accuracy measures the format as much as the knowledge."
                    )
    return found


def _stage_warnings(metrics: Metrics) -> list[str]:
    found = []
    if metrics.num_samples_seen != metrics.num_samples_expected:
        found.append(
            f"{metrics.stage}: {count(metrics.num_samples_seen)} samples were seen, "
            f"{count(metrics.num_samples_expected)} were expected."
        )
    if num_bad := sum(point.loss != point.loss or abs(point.loss) == float("inf") for point in metrics.losses):
        found.append(f"{metrics.stage}: the loss was not a finite number at {count(num_bad)} logged steps.")
    for module, num_trainable in metrics.num_trainable_parameters.items():
        num_changed, num_total = metrics.tensors_changed[module], metrics.tensors_total[module]
        name = module.replace("_", " ")
        if num_trainable == 0 and num_changed > 0:
            found.append(f"{metrics.stage}: {count(num_changed)} tensors of the frozen {name} changed.")
        elif num_trainable == metrics.num_parameters[module] and 0 < num_total != num_changed:
            found.append(
                f"{metrics.stage}: the {name} was trained, but only {count(num_changed)} of its {count(num_total)} "
                "tensors changed."
            )
    return found
