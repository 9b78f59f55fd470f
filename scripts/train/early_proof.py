"""Looks into the checkpoints of a running training for what scripts/train/proof.py would refuse at its end."""

from collections.abc import Collection
from pathlib import Path

from scripts.common.errors import UserError
from scripts.train.tensor_changes import check_changes, check_same_layout, compare_checkpoints, name_in_memory


class EarlyProof:
    """One for each start of a training.

    Each checkpoint must hold the input's tensors, by their headers. In the first one, what is frozen is compared with the
    input, byte for byte; in the first after a whole epoch also what trains, which by then has seen every row. Later ones are
    not read: on a large model that would keep the GPUs waiting at every save.
    """

    def __init__(self, model_dir: Path, trainable: Collection[str], epoch_steps: int) -> None:
        """`trainable`: names of tensors in memory."""
        self.model_dir, self.trainable, self.epoch_steps = model_dir, frozenset(trainable), epoch_steps
        self._has_compared_frozen = self._has_compared_all = False

    def problem(self, checkpoint_dir: Path, step: int) -> str | None:
        """Error text if training on would be of no use, else None."""
        try:
            tensors, _ = check_same_layout(self.model_dir, checkpoint_dir)
            is_trainable = {name: name_in_memory(name) in self.trainable for name in tensors}
            is_after_epoch = step >= self.epoch_steps and not self._has_compared_all
            if is_after_epoch or not self._has_compared_frozen:
                wanted = [name for name in tensors if is_after_epoch or not is_trainable[name]]
                changes = list(compare_checkpoints(self.model_dir, checkpoint_dir, wanted))
                check_changes(f"step {step}", changes, is_trainable)
                self._has_compared_frozen, self._has_compared_all = True, is_after_epoch
        except UserError as error:
            return str(error)
        return None
