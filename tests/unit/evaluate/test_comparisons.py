"""Each two models are compared on the questions that both answered."""

from helpers.evaluation_inputs import record, records
from scripts.evaluate.comparisons import comparison_rows, comparison_text
from scripts.evaluate.records import Record


def of_seed(seed: int, *right: int) -> list[Record]:
    """Four questions of one split, of which these are answered right."""
    return [record(index, split="test", subject=None, seed=seed, correct=index in right) for index in range(4)]


def test_each_two_models_are_compared_on_each_split() -> None:
    models = {
        "graft": records(),
        "stage2": records(correct=True),
        "stage2-blind": records(correct=False, image_sha256=None),
    }
    rows = list(comparison_rows(models))
    pairs = [("graft", "stage2"), ("graft", "stage2-blind"), ("stage2", "stage2-blind")]
    assert [(row.model, row.other, row.split) for row in rows] == [
        (*pair, split) for pair in pairs for split in ("dev", "test")
    ]
    test = rows[1]  # odd questions of 5 to 14: five right, five wrong
    assert test.num_questions == 10
    assert (test.num_both, test.num_model_only, test.num_other_only, test.num_neither) == (5, 0, 5, 0)
    assert (test.difference, test.mcnemar_p) == ("0.500000", "0.0625")
    assert float(test.ci95_low) < 0.5 < float(test.ci95_high)


def test_a_table_of_one_model_compares_nothing() -> None:
    assert comparison_text({"stage2": records()}) == (
        "model,other,split,num_questions,num_both,num_model_only,num_other_only,num_neither,difference,ci95_low,ci95_high,"
        "mcnemar_p\n"
    )


def test_models_are_compared_by_their_means_over_the_seeds() -> None:
    models = {"graft": [*of_seed(7, 0), *of_seed(8, 1)], "stage2": [*of_seed(7, 0, 1), *of_seed(8, 0, 2)]}
    (row,) = comparison_rows(models)
    assert row.num_questions == 4
    assert (row.num_both, row.num_model_only, row.num_other_only, row.num_neither) == (1, 0, 2, 1)
    assert row.difference == "0.250000"
