"""Questions are counted by the template of the model that is asked, and one that does not fit ends before any training."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.evaluation_inputs import NEUTRAL_DECODING, benchmark_rows, picture, vlmevalkit_settings, write_rows
from helpers.graft_run import make_graft

pytest.importorskip("swift", reason="the train environment has it")

NUM_TOKENS_OF_A_PICTURE = 4 + 2  # at most 56 x 56, with <|vision_start|> and <|vision_end|>


@pytest.fixture(scope="module")
def model_dir(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_graft(root, tmp_path_factory.mktemp("graft"), "qwen3", "fresh", dtype="float32")[0]


def checked(root: Path, tsv: Path, model_dir: Path, **flags: Any) -> subprocess.CompletedProcess[str]:
    serve = {
        "backend": "vllm", "num_replicas": 1, "num_nodes": 1, "environment": {"MAX_PIXELS": 3136}, "startup_timeout_s": 1,
        "flags": {**NEUTRAL_DECODING, **flags},
    }  # fmt: skip
    settings = ["--backend", "vlmevalkit", "--settings", json.dumps(vars(vlmevalkit_settings()))]
    inputs = ["--benchmark-tsv", str(tsv), *settings, "--serve", json.dumps(serve), "--model-dir", str(model_dir)]
    command = [sys.executable, "scripts", "evaluate.check_limits", *inputs, "--output", str(tsv.with_suffix(".json"))]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)


def needs(root: Path, tsv: Path, model_dir: Path, **flags: Any) -> dict[str, Any]:
    finished = checked(root, tsv, model_dir, **flags)
    assert finished.returncode == 0, finished.stderr
    record: dict[str, Any] = json.loads(tsv.with_suffix(".json").read_text())
    return record


def test_the_question_that_needs_most_decides_and_is_named(root: Path, model_dir: Path, tmp_path: Path) -> None:
    rows = benchmark_rows(4)
    few = needs(root, write_rows(rows, tmp_path / "few.tsv"), model_dir)
    rows[2]["image"] = repr([picture(str(number)) for number in range(3)])
    many_tsv = write_rows(rows, tmp_path / "many.tsv")
    many = needs(root, many_tsv, model_dir)
    assert (few["num_pictures"]["num"], many["num_pictures"]) == (1, {"num": 3, "index": "2"})
    assert many["num_tokens"] == {"num": few["num_tokens"]["num"] + 2 * NUM_TOKENS_OF_A_PICTURE, "index": "2"}

    many_tsv.with_suffix(".json").unlink()
    refused = checked(root, many_tsv, model_dir, vllm_limit_mm_per_prompt={"image": 2}, vllm_max_model_len=20)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "vllm_limit_mm_per_prompt: image: 2 found, but question 2 of" in refused.stderr
    assert (
        f"vllm_max_model_len: 20 found, but question 2 of {many_tsv} takes about {many['num_tokens']['num']}"
        in refused.stderr
    )
    assert not many_tsv.with_suffix(".json").exists()


def test_a_picture_that_no_server_could_take_ends_it_with_its_question(
    root: Path, model_dir: Path, tmp_path: Path
) -> None:
    import base64
    import io

    from PIL import Image

    data = io.BytesIO()
    Image.new("RGB", (2300, 10)).save(data, "PNG")
    rows = benchmark_rows(2)
    rows[1]["image"] = base64.b64encode(data.getvalue()).decode()
    refused = checked(root, write_rows(rows, tmp_path / "thin.tsv"), model_dir)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "thin.tsv: question 1: picture too thin for MAX_PIXELS" in refused.stderr
