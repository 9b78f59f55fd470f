"""Writes the model card of a stage's checkpoint, CHECKPOINT_DIR/README.md, from what the run itself recorded.

A checkpoint without a card cannot be published, and a card written by hand says what somebody remembers. This one holds the
donors with their licenses, what the graft kept of them, how each stage was trained, the scores with their intervals, and how
to load it; front matter as the hubs read it. A license is what the donors' own files state, or "unknown". No path of this
machine gets into it. The donors' LICENSE and NOTICE files, where there are any, are copied beside it (LICENSE.vl, LICENSE.llm).

It is made after the scores, and is no part of what identifies a model (common/checkpoint_files.py): it makes nothing stale.

By hand, for the demo:
  .venv/bin/python scripts upload.make_model_card --checkpoint-dir results/demo/stage2/checkpoint \
    --commit "$(git describe --always --dirty --abbrev=40)" \
    --metrics stage1=results/demo/stage1/metrics.json stage2=results/demo/stage2/metrics.json \
    --dataset-check stage1=results/demo/data/stage1.check.json stage2=results/demo/data/stage2.check.json \
    --donor resources/donors/demo-vl-seed0.json resources/donors/demo-llm-seed0.json \
    --ledger results/demo/graft/ledger.tsv --fidelity results/demo/graft/fidelity.json --benchmark digits=digits \
    --scores digits=results/demo/eval/digits.csv --score-provenance digits=results/demo/eval/digits.json
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scripts.common.commit import current_commit
from scripts.common.errors import UserError, run_program
from scripts.common.files import read_json, write_text_atomically
from scripts.common.local_paths import without_local_paths
from scripts.common.reading import require
from scripts.data.fingerprint import read_dataset_check
from scripts.donors.manifest import read_manifest
from scripts.evaluate.scores import Benchmark, check_provenance, check_same_weights, read_scores
from scripts.graft.fidelity import read_fidelity
from scripts.graft.ledger import read_ledger
from scripts.train.metrics import Metrics, check_metrics, read_metrics
from scripts.upload.card import CardInputs, DonorView, StageView, render
from scripts.upload.licenses import copied_name, copy_license_files, license_files, read_license

ROLES = ("vl", "llm")


def named(text: str) -> tuple[str, str]:
    """`NAME=VALUE`, the form of options that say which of several something is."""
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise argparse.ArgumentTypeError(f"{text!r} found; expected NAME=VALUE")
    return name, value


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "required": True}
    parser.add_argument("--checkpoint-dir", required=True, type=Path, help="gets README.md")
    parser.add_argument(
        "--metrics", **several, type=named, metavar="STAGE=FILE", help="in order; checkpoint/ beside each"
    )
    parser.add_argument("--dataset-check", **several, type=named, metavar="STAGE=FILE")
    parser.add_argument("--donor", **several, type=Path, metavar="FILE", help="both donors' manifests")
    parser.add_argument("--ledger", required=True, type=Path)
    parser.add_argument("--fidelity", required=True, type=Path)
    parser.add_argument("--benchmark", **several, type=named, metavar="NAME=DATASET", help="the harness's name")
    parser.add_argument("--scores", **several, type=named, metavar="NAME=CSV")
    parser.add_argument("--score-provenance", **several, type=named, metavar="NAME=JSON")
    return parser.parse_args(arguments)


def path_of(option: str, pairs: Iterable[tuple[str, str]], name: str) -> Path:
    """The one path of that name; UserError when it was not given."""
    found = dict(pairs)
    if name not in found:
        raise UserError(f"{option} {name}: not given; expected one for each of the others; add {option} {name}=FILE")
    return Path(found[name])


def read_stage(stage: str, metrics_path: Path, check_path: Path) -> StageView:
    """One stage's records; UserError when a file of it is missing or lacks something."""
    metrics = read_metrics(stage, metrics_path)
    check_metrics(metrics, metrics_path)
    settings_path = metrics_path.parent / "checkpoint" / "settings.json"
    settings = read_json(settings_path)
    for key, kinds in (
        ("stage", str), ("seed", int), ("datasets", list), ("num_nodes", int), ("num_processes_per_node", int),
        ("deepspeed", (str, type(None))), ("environment", dict), ("flags", dict),
    ):  # fmt: skip
        require(settings, key, kinds, str(settings_path))
    if settings["stage"] != stage:
        raise UserError(
            f"{settings_path}: settings of {settings['stage']} found; expected those of {stage}; export this stage again"
        )
    num_tokens_seen = require(read_json(metrics_path), "num_tokens_seen", int, str(metrics_path))
    return StageView(metrics, num_tokens_seen, read_dataset_check(stage, check_path), without_local_paths(settings))


def read_donor_view(manifest_path: Path) -> DonorView:
    """A donor's manifest, and what its files say of its license."""
    donor = read_manifest(manifest_path)
    donor_dir = Path(donor.dir)
    return DonorView(
        donor,
        directory=donor_dir,
        kind=donor.source.kind,
        license=read_license(donor_dir),
        license_files=[copied_name(path, donor.role) for path in license_files(donor_dir)],
    )


def read_benchmark(name: str, scores_path: Path, provenance_path: Path, stages: Sequence[Metrics]) -> Benchmark:
    """A score table and how it came about; UserError when it is of other weights than those that the stages made."""
    scores = read_scores(scores_path)
    models = list(dict.fromkeys(score.model for score in scores))
    provenance = check_provenance(read_json(provenance_path), models, provenance_path)
    benchmark = Benchmark(name, Path(), scores_path, scores, records={}, provenance=provenance)
    check_same_weights(benchmark, stages, provenance_path)
    return benchmark


def gather(arguments: argparse.Namespace) -> CardInputs:
    """Reads and checks every input."""
    config_path = arguments.checkpoint_dir / "config.json"
    model_config = read_json(config_path)
    require(model_config, "model_type", str, str(config_path))
    stages = [
        read_stage(stage, Path(path), path_of("--dataset-check", arguments.dataset_check, stage))
        for stage, path in arguments.metrics
    ]
    last_stage, last_path = arguments.metrics[-1]
    if arguments.checkpoint_dir.resolve() != (Path(last_path).parent / "checkpoint").resolve():
        raise UserError(
            f"{arguments.checkpoint_dir}: is not the checkpoint beside {last_path}, the last of --metrics; expected the "
            "stages in the order of training, the checkpoint's own last"
        )
    donors: dict[str, DonorView] = {view.donor.role: view for view in map(read_donor_view, arguments.donor)}
    for role in ROLES:
        if role not in donors:
            raise UserError(
                f"--donor: no manifest with role {role} given; expected one of {' and one of '.join(ROLES)}"
            )
    all_metrics = [stage.metrics for stage in stages]
    commit = current_commit()
    return CardInputs(
        stage=last_stage,
        commit=commit.name,
        is_dirty=commit.is_dirty,
        model_config=model_config,
        picture_config=read_json(arguments.checkpoint_dir / "preprocessor_config.json"),
        stages=stages,
        donors=[donors[role] for role in ROLES],
        ledger=read_ledger(arguments.ledger),
        fidelity=read_fidelity(arguments.fidelity),
        benchmarks=[
            read_benchmark(
                name,
                path_of("--scores", arguments.scores, name),
                path_of("--score-provenance", arguments.score_provenance, name),
                all_metrics,
            )
            for name, _ in arguments.benchmark
        ],
        dataset_names=dict(arguments.benchmark),
    )


def main() -> None:
    """Reads the arguments, makes the card and writes it, whole or not at all."""
    arguments = parse_arguments()
    inputs = gather(arguments)
    text = render(inputs)
    for view in inputs.donors:
        copy_license_files(view.directory, view.donor.role, arguments.checkpoint_dir)
    card_path = arguments.checkpoint_dir / "README.md"
    write_text_atomically(card_path, text)
    card_path.chmod(0o644)  # whatever the umask: it is made to be given away
    print(f"{card_path}: {len(text.splitlines())} lines")


if __name__ == "__main__":
    run_program(main)
