"""All that a model card is made from, read and checked; every path comes from the run's configuration."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.input_files import read_section
from scripts.common.reading import read_object, require
from scripts.data.dataset_check import DatasetCheck, read_dataset_check
from scripts.donors.manifest import DonorManifest, read_manifest_of
from scripts.donors.model_files import model_sha256
from scripts.evaluate.provenance import read_table_provenance
from scripts.evaluate.scores import Benchmark, check_same_weights, read_scores
from scripts.graft.fidelity import Fidelity
from scripts.graft.ledger import LedgerSum, sum_ledger
from scripts.graft.verification import read_proven
from scripts.report.commit import Commit
from scripts.report.hidden_secrets import without_secrets
from scripts.train.declarations import check_checkpoint
from scripts.train.local_paths import without_local_paths
from scripts.train.metrics import Metrics, read_metrics, require_settings_unedited
from scripts.train.settings import SETTINGS_NAME, ExportedSettings
from scripts.upload.licenses import License, copied_name, license_files, read_license
from scripts.upload.settings import CardSettings
from scripts.workflow.layout import Layout, stages_up_to

ROLES = ("vl", "llm")
HUB_KINDS = ("modelscope", "huggingface")


@dataclass(frozen=True)
class DonorView:
    """A donor: its manifest, and the license that its files state."""

    donor: DonorManifest
    license: License | None
    license_files: list[str]  # their names beside the card

    @property
    def name(self) -> str:
        return self.donor.name

    @property
    def directory(self) -> Path:
        return Path(self.donor.dir)

    @property
    def is_on_a_hub(self) -> bool:
        return self.donor.source.kind in HUB_KINDS

    @property
    def files_sha256(self) -> str:
        """One sha256 for all recorded files: that of the lines `sha256  name`, sorted by name."""
        lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted((f.name, f.sha256) for f in self.donor.files))
        return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True)
class StageView:
    """A stage that led to the checkpoint: metrics, training set, and the settings of its export."""

    metrics: Metrics
    dataset: DatasetCheck
    settings: ExportedSettings

    @property
    def sources(self) -> list[str]:
        return list(self.settings.datasets)

    @property
    def trained(self) -> list[str]:
        return [name.replace("_", " ") for name, number in self.metrics.num_trainable_parameters.items() if number]


@dataclass(frozen=True)
class CardInputs:
    """All that a card is made from, read and checked."""

    stage: str
    checkpoint_dir: Path
    commit: Commit
    model_config: dict[str, Any]
    picture_config: dict[str, Any]
    stages: list[StageView]  # in the order of training; the last one made the checkpoint
    donors: list[DonorView]
    ledger: list[LedgerSum]
    fidelity: Fidelity
    benchmarks: list[Benchmark]
    dataset_names: dict[str, str]  # of each benchmark, as the backend calls it

    def donor(self, role: str) -> DonorView:
        return next(view for view in self.donors if view.donor.role == role)


def read_stage(layout: Layout, stage: str) -> StageView:
    """One stage's records; UserError when a file of it is missing or lacks something."""
    metrics = read_metrics(stage, Path(layout.metrics(stage)))
    settings_path = Path(layout.checkpoint_dir(stage)) / SETTINGS_NAME
    settings = read_object(ExportedSettings, settings_path)
    if settings.stage != stage:
        raise UserError(
            f"{settings_path}: settings of {settings.stage} found; expected those of {stage}; export this stage again"
        )
    require_settings_unedited(settings_path, metrics, Path(layout.metrics(stage)))
    dataset = read_dataset_check(Path(layout.dataset_check(stage)))
    return StageView(metrics, dataset, ExportedSettings(**without_secrets(without_local_paths(vars(settings)))))


def read_donor_view(manifest_path: Path, role: str) -> DonorView:
    """A donor's manifest, and what its files say of its license."""
    donor = read_manifest_of(role, manifest_path)
    donor_dir = Path(donor.dir)
    return DonorView(
        donor,
        license=read_license(donor_dir),
        license_files=[copied_name(path, role) for path in license_files(donor_dir)],
    )


def read_benchmark(layout: Layout, name: str, stages: Sequence[Metrics], graft_sha256: str) -> Benchmark:
    """A score table and its provenance; UserError when it is of other weights than those that the stages made."""
    scores_path, provenance_path = Path(layout.scores(name)), Path(layout.scores_provenance(name))
    scores = read_scores(scores_path)
    models = list(dict.fromkeys(score.model for score in scores))
    provenance = read_table_provenance(provenance_path, models, scores_path)
    benchmark = Benchmark(name, Path(layout.questions(name)), scores_path, scores, records={}, provenance=provenance)
    made = {each.stage: each.checkpoint_sha256 for each in stages} | {"graft": graft_sha256}
    check_same_weights(benchmark, made, provenance_path)
    return benchmark


def read_card_inputs(stage: str, settings: CardSettings, commit: Commit) -> CardInputs:
    """Reads and checks the files of a run for the card of one stage. Raises UserError naming the file."""
    layout = Layout(asdict(settings))
    checkpoint_dir = Path(layout.checkpoint_dir(stage))
    config_path = checkpoint_dir / "config.json"
    model_config = read_section(config_path)
    require(model_config, "model_type", str, str(config_path))
    stages = [read_stage(layout, each) for each in stages_up_to(stage)]
    all_metrics = [each.metrics for each in stages]
    fidelity, ledger_rows = read_proven(Path(layout.fidelity), Path(layout.ledger))
    inputs = CardInputs(
        stage=stage,
        checkpoint_dir=checkpoint_dir,
        commit=commit,
        model_config=model_config,
        picture_config=read_section(checkpoint_dir / "preprocessor_config.json"),
        stages=stages,
        donors=[read_donor_view(Path(layout.donor_manifest(role)), role) for role in ROLES],
        ledger=sum_ledger(ledger_rows),
        fidelity=fidelity,
        benchmarks=[read_benchmark(layout, name, all_metrics, fidelity.graft_sha256) for name in layout.benchmarks],
        dataset_names={name: listed.dataset for name, listed in layout.benchmarks.items()},
    )
    check_checkpoint(checkpoint_dir, model_sha256(checkpoint_dir), Path(layout.metrics(stage)))
    return inputs
