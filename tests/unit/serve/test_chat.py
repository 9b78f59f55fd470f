"""Questions from the terminal are asked with the evaluation's settings."""

import json
from pathlib import Path

from helpers.evaluation_inputs import serve_settings
from scripts.serve.chat import DEPLOY_ONLY_FLAGS, infer_command
from scripts.serve.command import Serving


def test_questions_from_the_terminal_are_asked_with_the_evaluations_settings(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl_qwen3"}))
    flags = {"max_new_tokens": 16, "served_model_name": "Qwen3-VL", "port": 8000}
    command = infer_command(Serving(Path("python"), tmp_path, serve_settings(flags=flags)))
    assert command[:3] == ["python", "-m", "swift.cli.infer"]
    given = dict(zip(command[3::2], command[4::2], strict=True))
    assert given["--infer_backend"] == "transformers" and given["--model"] == str(tmp_path)
    assert given["--max_new_tokens"] == "16"
    assert not {f"--{name}" for name in DEPLOY_ONLY_FLAGS} & given.keys()
