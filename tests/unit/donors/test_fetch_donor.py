"""Fetching donors: what is recorded, what is refused, and downloads from a stand-in for the hubs."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from helpers.hub_stand_in import hub_stand_in
from helpers.processes import wait_for
from helpers.small_checkpoint import write_small_checkpoint
from helpers.tiny_donor_files import edit_json
from scripts.common.errors import UserError
from scripts.donors import fetch_donor
from scripts.donors.checksums import needed_files, record_files
from scripts.donors.manifest import DonorManifest, write_manifest
from scripts.donors.settings import DonorSource

HUB_KINDS = ["modelscope", "huggingface"]
MODEL_ID = "someone/small-model"


@pytest.fixture
def checkpoint_dir(tmp_path: Path) -> Path:
    return write_small_checkpoint(tmp_path / "checkpoint")


def command_of(
    root: Path, source: dict[str, Any], directory: Path, manifest_path: Path, python: Path | None = None
) -> list[str]:
    """The command that the rule runs; the workflow's python will do where no hub's library is needed."""
    python = python or root / ".venv/bin/python"
    return [
        *[str(python), "scripts", "donors.fetch_donor", "--role", "llm", "--source", json.dumps(source)],
        *["--dir", str(directory), "--manifest", str(manifest_path)],
    ]


def record_local(root: Path, directory: Path, manifest_path: Path) -> subprocess.CompletedProcess[str]:
    source = {"kind": "local", "path": str(directory)}
    command = command_of(root, source, directory, manifest_path)
    return subprocess.run(command, cwd=root, text=True, capture_output=True)


def test_a_local_donor_is_recorded_file_by_file_and_left_as_it_was(
    root: Path, checkpoint_dir: Path, tmp_path: Path
) -> None:
    (checkpoint_dir / "pytorch_model.bin").write_bytes(b"the same weights once more")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in checkpoint_dir.iterdir()}
    finished = record_local(root, checkpoint_dir, tmp_path / "manifest.json")
    assert finished.returncode == 0, finished.stderr
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in checkpoint_dir.iterdir()}

    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["role"] == "llm"
    assert manifest["dir"] == str(checkpoint_dir)
    names = sorted(path.name for path in checkpoint_dir.iterdir() if path.suffix != ".bin")
    assert [record["name"] for record in manifest["files"]] == names
    for record in manifest["files"]:
        content = (checkpoint_dir / record["name"]).read_bytes()
        assert record["num_bytes"] == len(content)
        assert record["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_file_that_changed_since_it_was_recorded_is_refused_with_its_name(
    root: Path, checkpoint_dir: Path, tmp_path: Path
) -> None:
    manifest_path = tmp_path / "manifest.json"
    assert record_local(root, checkpoint_dir, manifest_path).returncode == 0
    recorded = manifest_path.read_text()
    (checkpoint_dir / "tokenizer.json").write_text('{"other": 1}')
    finished = record_local(root, checkpoint_dir, manifest_path)
    assert finished.returncode == 1
    assert "tokenizer.json: changed since" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert manifest_path.read_text() == recorded


def test_a_file_that_vanished_since_it_was_recorded_is_refused(
    root: Path, checkpoint_dir: Path, tmp_path: Path
) -> None:
    manifest_path = tmp_path / "manifest.json"
    assert record_local(root, checkpoint_dir, manifest_path).returncode == 0
    (checkpoint_dir / "tokenizer.json").unlink()
    finished = record_local(root, checkpoint_dir, manifest_path)
    assert finished.returncode == 1
    assert "absent found" in finished.stderr


def test_a_manifest_of_another_source_does_not_stand_in_the_way(
    root: Path, checkpoint_dir: Path, tmp_path: Path
) -> None:
    manifest_path = tmp_path / "manifest.json"
    assert record_local(root, checkpoint_dir, manifest_path).returncode == 0
    other_dir = write_small_checkpoint(tmp_path / "other", value=2.0)
    assert record_local(root, other_dir, manifest_path).returncode == 0
    assert json.loads(manifest_path.read_text())["dir"] == str(other_dir)


def test_donors_that_were_mixed_up_are_named(checkpoint_dir: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json: model_type 'qwen3' found, 'qwen2_5_vl' expected.*swap"):
        fetch_donor.check_whole(checkpoint_dir, "vl")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"kind": "huggingface", "id": MODEL_ID}, "donors.ROLE.revision: missing; kind huggingface needs it"),
        ({"kind": "local", "path": "x", "id": MODEL_ID}, "donors.ROLE.id: contradicts kind local, which has no id"),
        ({"kind": "url"}, 'donors.ROLE.kind: "url" found; expected modelscope or huggingface or local or demo'),
        ({"kind": "demo", "url": "x"}, "donors.ROLE.url: unknown key; expected kind, id, path, revision"),
    ],
)
def test_a_source_given_by_hand_is_checked_like_that_of_a_configuration(
    root: Path, tmp_path: Path, source: dict[str, Any], message: str
) -> None:
    command = [str(root / ".venv/bin/python"), *command_of(root, source, tmp_path, tmp_path / "manifest.json")[1:]]
    finished = subprocess.run(command, cwd=root, text=True, capture_output=True)
    assert (finished.returncode, finished.stderr.partition(";")[0]) == (1, f"error: {message.partition(';')[0]}")


@pytest.mark.parametrize("kind", HUB_KINDS)
def test_a_download_killed_half_way_goes_on_by_the_same_command(
    root: Path, train_python: Path, checkpoint_dir: Path, tmp_path: Path, kind: str
) -> None:
    (checkpoint_dir / "pytorch_model.bin").write_bytes(b"the same weights once more")
    about = {"README.md": "---\nlicense: apache-2.0\n---\n", "LICENSE": "Apache License", "NOTICE.txt": "of others"}
    for name, text in about.items():
        (checkpoint_dir / name).write_text(text)
    directory, manifest_path = tmp_path / "donor", tmp_path / "manifest.json"
    source = {"kind": kind, "id": MODEL_ID, "revision": "master"}
    command = command_of(root, source, directory, manifest_path, train_python)
    whole = sorted(path.name for path in checkpoint_dir.iterdir() if path.suffix in (".json", ".jinja"))

    with hub_stand_in({MODEL_ID: checkpoint_dir}) as hub:
        environment = os.environ | hub.environment() | {"HF_HOME": str(tmp_path), "MODELSCOPE_CACHE": str(tmp_path)}
        hub.stalled = "model.safetensors"
        process = subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.DEVNULL)
        wait_for(
            lambda: (
                process.poll() is not None
                or (hub.asked_for("model.safetensors") and are_fetched(directory, whole, kind))
            ),
            lambda: str(hub.paths),
        )
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not manifest_path.exists()

        hub.stalled = None
        hub.paths.clear()
        finished = subprocess.run(command, cwd=root, env=environment, text=True, capture_output=True)
        assert finished.returncode == 0, finished.stderr
        fetched_again = [name for name in whole if any("resolve" in p or "FilePath" in p for p in hub.asked_for(name))]

    assert fetched_again == []
    assert "it/s" not in finished.stderr, "a progress bar is no line"
    assert not (directory / "pytorch_model.bin").exists()
    assert {name: (directory / name).read_text() for name in about} == about, "the model card needs its licence"
    for record in json.loads(manifest_path.read_text())["files"]:
        assert record["sha256"] == hashlib.sha256((checkpoint_dir / record["name"]).read_bytes()).hexdigest()


def are_fetched(directory: Path, names: list[str], kind: str) -> bool:
    """Whether the files are there, and with Hugging Face's library also what it writes down about each after it."""
    paths = [directory / name for name in names]
    if kind == "huggingface":
        paths += [directory / f".cache/huggingface/download/{name}.metadata" for name in names]
    return all(path.exists() for path in paths)


@pytest.mark.parametrize("kind", HUB_KINDS)
def test_the_weights_of_a_model_that_is_refused_are_never_downloaded(
    root: Path, train_python: Path, checkpoint_dir: Path, tmp_path: Path, kind: str
) -> None:
    edit_json(checkpoint_dir / "config.json", model_type="llama")
    source = {"kind": kind, "id": MODEL_ID, "revision": "master"}
    command = command_of(root, source, tmp_path / "donor", tmp_path / "manifest.json", train_python)
    with hub_stand_in({MODEL_ID: checkpoint_dir}) as hub:
        environment = os.environ | hub.environment() | {"HF_HOME": str(tmp_path), "MODELSCOPE_CACHE": str(tmp_path)}
        finished = subprocess.run(command, cwd=root, env=environment, text=True, capture_output=True)
        assert hub.asked_for("config.json") and not hub.asked_for("model.safetensors")
    assert finished.returncode == 1
    assert "config.json: model_type 'llama' found, 'qwen3' expected" in finished.stderr


@pytest.mark.parametrize("kind", HUB_KINDS)
def test_a_hub_that_does_not_know_the_id_gives_one_clear_message(
    root: Path, train_python: Path, checkpoint_dir: Path, tmp_path: Path, kind: str
) -> None:
    source = {"kind": kind, "id": "someone/unknown", "revision": "master"}
    command = command_of(root, source, tmp_path / "donor", tmp_path / "manifest.json", train_python)
    with hub_stand_in({MODEL_ID: checkpoint_dir}) as hub:
        environment = os.environ | hub.environment() | {"HF_HOME": str(tmp_path), "MODELSCOPE_CACHE": str(tmp_path)}
        finished = subprocess.run(command, cwd=root, env=environment, text=True, capture_output=True)
    assert finished.returncode == 1
    assert "someone/unknown (revision master) could not be fetched from" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "manifest.json").exists()


def test_a_file_of_a_fetched_donor_that_is_damaged_later_is_refused(
    root: Path, checkpoint_dir: Path, tmp_path: Path
) -> None:
    """As when a disk or a hand has changed a donor of the user's: nothing is built on it."""
    copy_dir = tmp_path / "copy"
    shutil.copytree(checkpoint_dir, copy_dir)
    source = DonorSource("huggingface", id=MODEL_ID, revision="main")
    records = record_files(needed_files(copy_dir))
    write_manifest(tmp_path / "manifest.json", DonorManifest("llm", source, str(copy_dir), records))
    with open(copy_dir / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x3e")
    now = record_files(needed_files(copy_dir))
    with pytest.raises(UserError, match=r"model\.safetensors: changed since"):
        fetch_donor.check_unchanged(now, tmp_path / "manifest.json", source, copy_dir)


@pytest.mark.parametrize("name", ["model.safetensors", "old-weights.safetensors"])
def test_two_sets_of_weights_are_refused_and_both_named(root: Path, tmp_path: Path, name: str) -> None:
    """transformers and ms-swift read a model.safetensors, the graft the shards of the index."""
    donor_dir = write_small_checkpoint(tmp_path / "llm", num_shards=2)
    stale, used = donor_dir / name, sorted(donor_dir.glob("model-*.safetensors"))
    shutil.copyfile(used[0], stale)
    finished = record_local(root, donor_dir, tmp_path / "manifest.json")
    assert finished.returncode == 1 and not (tmp_path / "manifest.json").exists()
    assert f"error: {stale}: two sets of weights" in finished.stderr and used[0].name in finished.stderr


def test_a_manifest_is_not_written_into_the_users_donor(root: Path, checkpoint_dir: Path) -> None:
    finished = record_local(root, checkpoint_dir, checkpoint_dir / "manifest.json")
    assert finished.returncode == 1
    assert "found as an input and as an output" in finished.stderr
    assert not (checkpoint_dir / "manifest.json").exists()
