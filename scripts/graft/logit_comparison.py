"""Logits of the graft and of its language donor on one text, side by side, a few rows at a time."""

from collections.abc import Sequence

import torch

from scripts.graft.fidelity import Comparison

NUM_ROWS_AT_A_TIME = 64  # of a vocabulary of numbers each, in float64


def first_difference(donor: torch.Tensor, graft: torch.Tensor, place: str) -> str | None:
    """Where two tensors of logits first differ."""
    tokens = (donor != graft).any(-1).nonzero()
    if len(tokens) == 0:
        return None
    token = int(tokens[0])
    entry = int((donor[token] != graft[token]).nonzero()[0])
    return (
        f"{place}, token {token}, vocabulary entry {entry}: donor {donor[token, entry].item()!r}, "
        f"graft {graft[token, entry].item()!r}"
    )


def compare(
    texts: Sequence[torch.Tensor], donor_logits: Sequence[torch.Tensor], graft_logits: Sequence[torch.Tensor]
) -> Comparison:
    """Compares the logits of all texts, and of the padded batch that follows them."""
    places = [*(f"text {number}" for number in range(1, len(texts) + 1)), "left-padded batch"]
    differences = [first_difference(d, g, p) for d, g, p in zip(donor_logits, graft_logits, places, strict=True)]
    kl_sum, donor_nll, graft_nll, num_top1_equal = 0.0, 0.0, 0.0, 0
    for ids, donor, graft in zip(texts, donor_logits, graft_logits, strict=False):
        num_top1_equal += int((donor.argmax(-1) == graft.argmax(-1)).sum())
        for begin in range(0, len(ids), NUM_ROWS_AT_A_TIME):
            rows = slice(begin, begin + NUM_ROWS_AT_A_TIME)
            log_p, log_q = (logits[rows].double().log_softmax(-1) for logits in (donor, graft))
            kl_sum += (log_p.exp() * (log_p - log_q)).sum().item()
            targets = ids[begin + 1 : begin + 1 + len(log_p), None]
            donor_nll -= log_p[: len(targets)].gather(1, targets).sum().item()
            graft_nll -= log_q[: len(targets)].gather(1, targets).sum().item()
    return Comparison(
        num_tokens=sum(len(ids) for ids in texts),
        num_predictions=sum(len(ids) - 1 for ids in texts),
        kl_sum_nats=kl_sum,
        num_top1_equal=num_top1_equal,
        donor_nll_nats=donor_nll,
        graft_nll_nats=graft_nll,
        max_abs_difference=max(
            (d.float() - g.float()).abs().max().item() for d, g in zip(donor_logits, graft_logits, strict=True)
        ),
        first_difference=next(filter(None, differences), None),
    )
