"""The models of one table answered the same questions, or the table is refused."""

from pathlib import Path

from scripts.common.errors import UserError
from scripts.evaluate.model_names import is_control
from scripts.evaluate.records import Record, of_first_seed
from scripts.evaluate.scores import Benchmark


def check_same_questions(benchmark: Benchmark, record_paths: dict[str, Path]) -> None:
    """Refuses records of models that were not asked the same questions."""
    reference_model = next(iter(benchmark.records))
    reference = of_first_seed(benchmark.records[reference_model])
    for model, records in benchmark.records.items():
        by_index = of_first_seed(records)
        if differing := sorted(by_index.keys() ^ reference.keys()):
            has, lacks = (model, reference_model) if differing[0] in by_index else (reference_model, model)
            raise UserError(
                f"{record_paths[lacks]}: no record of question {differing[0]}, which {record_paths[has]} has "
                f"({len(differing)} such); evaluate both models on the same benchmark file"
            )
        for index, record in by_index.items():
            other = reference[index]
            for field in ("question", "options", "answer", "split"):
                if getattr(record, field) != getattr(other, field):
                    raise UserError(
                        f"{record_paths[model]}: the {field} of question {index} is "
                        f"{getattr(record, field)!r}, but {record_paths[reference_model]} has "
                        f"{getattr(other, field)!r}; evaluate both models on the same benchmark file"
                    )
        if is_control(model) and not is_control(reference_model):
            _check_other_pictures(by_index, reference, record_paths[model], record_paths[reference_model])
        elif not is_control(model):
            _check_same_pictures(by_index, reference, record_paths[model], record_paths[reference_model])


def _check_same_pictures(
    records: dict[str, Record], reference: dict[str, Record], path: Path, reference_path: Path
) -> None:
    for index, record in records.items():
        if record.image_sha256 != reference[index].image_sha256:
            raise UserError(
                f"{path}: question {index} was asked with another picture than in {reference_path}; "
                "evaluate both models on the same benchmark file"
            )


def _check_other_pictures(
    records: dict[str, Record], reference: dict[str, Record], path: Path, reference_path: Path
) -> None:
    if all(record.image_sha256 == reference[index].image_sha256 for index, record in records.items()):
        raise UserError(
            f"{path}: every question was asked with the same picture as in {reference_path}, so this is no control; "
            "evaluate it again with its pictures shuffled, or without them"
        )
