"""The models of one table answered the same questions about the same pictures, or the table is refused."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.common.errors import UserError
from scripts.evaluate.model_names import NO_CONTROL, control_of
from scripts.evaluate.records import Record

# What belongs to the question, not to the answer. Pictures are compared by themselves, since a control has others.
QUESTION_FIELDS = ("split", "discipline", "subject", "question", "options", "answer", "metric")
REMEDY = "evaluate both models on the same benchmark file"

# A question and a seed.
Key = tuple[str, int]


def check_same_questions(records: Mapping[str, Sequence[Record]], paths: Mapping[str, Path]) -> None:
    """Raises UserError when two models were not asked the same questions, or not about the same pictures.

    Models under one control (or none) must have the same pictures; a control must have others than the first model.
    """
    by_key = {model: {(record.index, record.seed): record for record in of} for model, of in records.items()}
    reference, *others = by_key
    for model in others:
        _check_same_texts(by_key[model], by_key[reference], paths[model], paths[reference])
        like = next(each for each in by_key if control_of(each) == control_of(model))
        _check_same_pictures(by_key[model], by_key[like], paths[model], paths[like])
        if control_of(model) != NO_CONTROL and control_of(reference) == NO_CONTROL:
            _check_other_pictures(by_key[model], by_key[reference], paths[model], paths[reference])


def _check_same_texts(
    records: Mapping[Key, Record], reference: Mapping[Key, Record], path: Path, reference_path: Path
) -> None:
    if differing := sorted(records.keys() ^ reference.keys()):
        has, lacks = (path, reference_path) if differing[0] in records else (reference_path, path)
        index, seed = differing[0]
        raise UserError(
            f"{lacks}: no record of question {index} (seed {seed}), which {has} has ({len(differing)} such); {REMEDY}"
        )
    for key, record in records.items():
        for field in QUESTION_FIELDS:
            found, expected = getattr(record, field), getattr(reference[key], field)
            if found != expected:
                raise UserError(
                    f"{path}: the {field} of question {record.index} is {found!r}, but {reference_path} has {expected!r}; "
                    f"{REMEDY}"
                )


def _check_same_pictures(
    records: Mapping[Key, Record], reference: Mapping[Key, Record], path: Path, reference_path: Path
) -> None:
    for key, record in records.items():
        if record.image_sha256 != reference[key].image_sha256:
            raise UserError(
                f"{path}: question {record.index} was asked with another picture than in {reference_path}; {REMEDY}"
            )


def _check_other_pictures(
    records: Mapping[Key, Record], reference: Mapping[Key, Record], path: Path, reference_path: Path
) -> None:
    if all(record.image_sha256 == reference[key].image_sha256 for key, record in records.items()):
        raise UserError(
            f"{path}: every question was asked with the same picture as in {reference_path}, so this is no control; "
            "evaluate it again with its pictures shuffled, or without them"
        )
