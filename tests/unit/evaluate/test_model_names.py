"""Names of models: their order, and the controls."""

from scripts.evaluate.model_names import pipeline_order


def test_models_stand_in_pipeline_order_with_controls_last() -> None:
    models = ["stage2-shuffled", "stage2-blind", "zebra", "stage2", "graft", "parent", "stage1"]
    assert sorted(models, key=pipeline_order) == [
        "parent",
        "graft",
        "stage1",
        "stage2",
        "zebra",
        "stage2-blind",
        "stage2-shuffled",
    ]
