"""The models of a score table by name, in the order in which they are shown."""

CONTROL_SUFFIX = "-shuffled"
# The order in which the pipeline makes them; any other name stands behind them.
PIPELINE_MODELS = ("parent", "graft", "stage1", "stage2")


def is_control(model: str) -> bool:
    """Whether a row is the control with pictures shuffled among the questions."""
    return model.endswith(CONTROL_SUFFIX)


def pipeline_order(model: str) -> tuple[bool, int, str]:
    """Sort key: the models in the order in which the pipeline makes them, controls after all of them."""
    base = model.removesuffix(CONTROL_SUFFIX)
    place = PIPELINE_MODELS.index(base) if base in PIPELINE_MODELS else len(PIPELINE_MODELS)
    return is_control(model), place, model
