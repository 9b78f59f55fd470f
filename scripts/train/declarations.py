"""What is used is what was declared: a model is compared, before it is trained on, served or scored, with what declares it.

A graft is declared by its ledger and, once proven, by fidelity.json; a stage's checkpoint by the metrics.json beside it; a
donor by its manifest. The files are read anyway, for the sha256 that identifies the model; only a graft's tensors are hashed
once more, one by one. And nothing is loaded that could run code which is not ours (scripts/graft/own_code.py).
"""

from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.logger import log
from scripts.donors.checksums import check_recorded_digests
from scripts.donors.model_files import file_digests, joined_sha256
from scripts.graft.ledger import LEDGER_NAME
from scripts.graft.own_code import require_own_code
from scripts.graft.verification import check_graft
from scripts.train.metrics import CHECKPOINT_NAME, METRICS_NAME, declared_sha256


def checked_sha256(model_dir: Path, manifest_path: Path | None = None) -> str:
    """The sha256 of a model; raises UserError where it is not the declared one, or could run code that is not ours.

    `manifest_path` is given for a donor. A directory that nothing declares, such as a copy elsewhere, is logged as such.
    """
    require_own_code(model_dir)
    digests = file_digests(model_dir)
    found = joined_sha256(digests)
    metrics_path = model_dir.resolve().parent / METRICS_NAME
    if manifest_path:
        check_recorded_digests(model_dir, digests, manifest_path)
    elif (model_dir / LEDGER_NAME).exists():
        check_graft(model_dir, digests)
    elif model_dir.resolve().name == CHECKPOINT_NAME and metrics_path.exists():
        check_checkpoint(model_dir, found, metrics_path)
    else:
        log(
            f"{model_dir}: nothing declares its sha256 (no {LEDGER_NAME} in it, no {METRICS_NAME} beside it): not compared"
        )
    return found


def check_checkpoint(model_dir: Path, found: str, metrics_path: Path) -> None:
    """Raises UserError where a checkpoint's sha256 is not the one of its stage's metrics."""
    if (declared := declared_sha256(metrics_path)) != found:
        raise UserError(
            f"{model_dir}: sha256 {found} found over its files, {declared} declared by {metrics_path}; a file was changed, added "
            f"or removed since; bring it back, or remove {metrics_path} and give the stage's command again, which exports "
            "its checkpoint anew"
        )
