"""What cannot be served is refused in one line, before a server starts."""

import json
import socket
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from helpers.evaluation_inputs import serve_settings
from helpers.report_inputs import make_metrics
from helpers.small_checkpoint import write_small_checkpoint
from scripts.common.reading import write_sealed


@pytest.mark.parametrize("program", ["serve.serve", "serve.chat", "serve.app"])
def test_a_checkpoint_that_is_not_the_declared_one_is_not_served(root: Path, tmp_path: Path, program: str) -> None:
    checkpoint_dir = write_small_checkpoint(tmp_path / "checkpoint")
    (checkpoint_dir / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl_qwen3"}))
    metrics_path = tmp_path / "metrics.json"
    write_sealed(metrics_path, make_metrics("stage1", num_steps=4, seed=0) | {"checkpoint_sha256": "0" * 64})
    options = ["--checkpoint-dir", str(checkpoint_dir), "--serve", json.dumps(asdict(serve_settings()))]
    page = ["--app-python", "/bin/false"] if program == "serve.app" else []
    command = [".venv/bin/python", "scripts", program, *options, "--serve-python", "/bin/false", *page]
    finished = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert finished.returncode == 1
    *_, error = finished.stderr.splitlines()
    assert error.startswith(f"error: {checkpoint_dir}: sha256 ")
    assert f"{'0' * 64} declared by {metrics_path}" in error


def test_a_page_at_a_port_that_is_taken_is_refused_before_the_model_is_loaded(root: Path, tmp_path: Path) -> None:
    checkpoint_dir = write_small_checkpoint(tmp_path / "checkpoint")
    options = ["--checkpoint-dir", str(checkpoint_dir), "--serve", json.dumps(asdict(serve_settings()))]
    options += ["--serve-python", "/bin/false", "--app-python", "/bin/false"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [".venv/bin/python", "scripts", "serve.app", *options, "--port", str(port)]
        finished = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1].startswith(f"error: --port: {port} cannot be used")
    assert "loading" not in finished.stderr
