"""Donors that are not whole, and hubs that cannot be reached: one message, exit status 1, nothing left behind."""

import json
import os
import socketserver
import subprocess
import threading
from pathlib import Path

import pytest

from helpers.processes import LIMIT_S
from helpers.small_checkpoint import write_small_checkpoint

NUM_SHARDS = 2
SECOND_SHARD = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def record(root: Path, directory: Path, manifest_path: Path) -> subprocess.CompletedProcess[str]:
    source = json.dumps({"kind": "local", "path": str(directory)})
    command = [".venv/bin/python", "scripts", "donors.fetch_donor", "--role", "llm", "--source", source]
    command += ["--dir", str(directory), "--manifest", str(manifest_path)]
    return subprocess.run(command, cwd=root, text=True, capture_output=True)


def assert_refused(finished: subprocess.CompletedProcess[str], manifest_path: Path, *words: str) -> None:
    assert finished.returncode == 1
    (message,) = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    for word in words:
        assert word in message
    assert "Traceback" not in finished.stderr
    assert not manifest_path.exists()


@pytest.fixture
def checkpoint_dir(tmp_path: Path) -> Path:
    return write_small_checkpoint(tmp_path / "checkpoint", num_shards=NUM_SHARDS)


@pytest.fixture
def manifest_path(tmp_path: Path) -> Path:
    return tmp_path / "manifest.json"


def test_a_whole_donor_in_shards_is_recorded(root: Path, checkpoint_dir: Path, manifest_path: Path) -> None:
    assert record(root, checkpoint_dir, manifest_path).returncode == 0
    assert manifest_path.exists()


def test_a_truncated_shard_is_refused_with_its_name(root: Path, checkpoint_dir: Path, manifest_path: Path) -> None:
    os.truncate(checkpoint_dir / SECOND_SHARD, (checkpoint_dir / SECOND_SHARD).stat().st_size - 1)
    assert_refused(record(root, checkpoint_dir, manifest_path), manifest_path, SECOND_SHARD, "truncated", "fetch")


def test_nan_in_a_donor_is_refused_with_the_tensor_and_its_place(
    root: Path, checkpoint_dir: Path, manifest_path: Path
) -> None:
    with open(checkpoint_dir / SECOND_SHARD, "r+b") as file:
        file.seek(-8, os.SEEK_END)  # the last value but one of a thousand float32
        file.write(b"\x00\x00\xc0\x7f")
    words = [SECOND_SHARD, "tensor layer.1.weight holds NaN or infinity, first at index 998", "fetch this donor again"]
    assert_refused(record(root, checkpoint_dir, manifest_path), manifest_path, *words)


def test_a_missing_shard_is_refused_with_its_name(root: Path, checkpoint_dir: Path, manifest_path: Path) -> None:
    (checkpoint_dir / SECOND_SHARD).unlink()
    assert_refused(record(root, checkpoint_dir, manifest_path), manifest_path, SECOND_SHARD, "not found", INDEX)


def test_an_index_that_names_an_absent_tensor_is_refused_with_the_tensor(
    root: Path, checkpoint_dir: Path, manifest_path: Path
) -> None:
    index = json.loads((checkpoint_dir / INDEX).read_text())
    index["weight_map"]["layer.7.weight"] = SECOND_SHARD
    (checkpoint_dir / INDEX).write_text(json.dumps(index))
    assert_refused(record(root, checkpoint_dir, manifest_path), manifest_path, INDEX, "layer.7.weight")


def test_a_directory_without_a_config_is_refused(root: Path, checkpoint_dir: Path, manifest_path: Path) -> None:
    (checkpoint_dir / "config.json").unlink()
    assert_refused(record(root, checkpoint_dir, manifest_path), manifest_path, "config.json: not found")


def test_a_directory_that_is_not_there_is_refused(root: Path, tmp_path: Path, manifest_path: Path) -> None:
    finished = record(root, tmp_path / "nowhere", manifest_path)
    assert_refused(finished, manifest_path, "nowhere: not found", "check the path")


class DeafHub(socketserver.ThreadingTCPServer):
    """Hangs up on everybody, and counts them."""

    num_connections = 0

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            assert isinstance(self.server, DeafHub)
            self.server.num_connections += 1


@pytest.mark.parametrize("kind", ["huggingface", "modelscope"])
def test_a_hub_that_cannot_be_reached_gives_one_message_with_the_remedy_after_few_tries(
    root: Path, train_python: Path, tmp_path: Path, manifest_path: Path, kind: str
) -> None:
    source = json.dumps({"kind": kind, "id": "Qwen/Qwen3-8B", "revision": "master"})
    command = [str(train_python), "scripts", "donors.fetch_donor", "--role", "llm", "--source", source]
    command += ["--dir", str(tmp_path / "donor"), "--manifest", str(manifest_path)]
    with DeafHub(("127.0.0.1", 0), DeafHub.Handler) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{hub.server_address[1]}"
        environment = os.environ | {"HF_ENDPOINT": address, "MODELSCOPE_ENDPOINT": address, "NO_PROXY": "127.0.0.1"}
        environment |= {"HF_HOME": str(tmp_path), "MODELSCOPE_CACHE": str(tmp_path)}
        finished = subprocess.run(command, cwd=root, env=environment, text=True, capture_output=True, timeout=LIMIT_S)
        hub.shutdown()
    assert_refused(finished, manifest_path, "Qwen/Qwen3-8B (revision master)", "internet", "kind: local")
    assert 0 < hub.num_connections <= 20
