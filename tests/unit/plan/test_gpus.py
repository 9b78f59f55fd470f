"""The cards of config/gpus.yaml."""

from scripts.plan.gpus import known_gpus


def test_every_card_has_memory_a_peak_and_a_bandwidth() -> None:
    cards = known_gpus()
    assert len(cards) >= 5
    assert all(gpu.memory_gib > 10 and gpu.peak_tflop_s > 100 and gpu.bandwidth_gb_s > 500 for gpu in cards.values())
