"""A page in a real browser, with the demo's model behind it: what a person does there, and what comes of it."""

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from helpers.browser import NAMES, chromium, opened
from helpers.slurm_cluster import wait_until
from helpers.workflow_run import WorkflowRun
from scripts.serve.page import ask, messages_of
from scripts.serve.settings import DEFAULT_SERVED_NAME

pytestmark = [
    pytest.mark.slow,
    pytest.mark.full,
    pytest.mark.skipif(chromium() is None, reason=f"none of {', '.join(NAMES)} is installed"),
]
QUESTION = "Which digit is this?"


def test_a_picture_and_a_question_get_the_models_answer_and_a_refused_one_its_reason(
    root: Path, tmp_path: Path, kept_demo: WorkflowRun, app_python: Path
) -> None:
    said_path = tmp_path / "said.log"
    checkpoint_dir = kept_demo.results / "stage2/checkpoint"
    command = [root / ".venv/bin/python", root / "scripts", "serve.app", "--config", root / "config/demo.yaml"]
    with open(said_path, "wb") as said_file:
        app = subprocess.Popen(
            [*command, "--checkpoint-dir", str(checkpoint_dir)], cwd=tmp_path, stdout=said_file, stderr=said_file
        )

    def address() -> str | None:
        assert app.poll() is None, said_path.read_text()
        found = re.search(r"ready: (http://127\.0\.0\.1:\d+)", said_path.read_text())
        return found.group(1) if found else None

    try:
        wait_until(lambda: address() is not None, "the page")
        (server_path,) = tmp_path.glob("work/serve/*/server.json")
        server: dict[str, Any] = json.loads(server_path.read_text())
        picture_path = next(iter(sorted((kept_demo.directory / "resources/data/digits/images").glob("test-*.png"))))
        with opened(address() or "", tmp_path / "profile") as page:
            page.wait_for("document.querySelector('textarea') != null")
            page.choose_files("input[type=file]", picture_path)
            page.wait_for("document.querySelectorAll('img').length > 0")
            page.type_text("textarea", QUESTION)
            page.press_enter()
            page.wait_for("document.querySelector('.bot.message') != null")
            base_url = f"http://127.0.0.1:{server['port']}/v1"
            answer = ask(base_url, DEFAULT_SERVED_NAME, messages_of([], QUESTION, [str(picture_path)]))
            page.wait_for(f"document.querySelector('.bot.message').innerText.trim() == {json.dumps(answer.strip())}")
            (tmp_path / "broken.png").write_bytes(b"no picture")
            page.choose_files("input[type=file]", tmp_path / "broken.png")
            page.wait_for("document.querySelectorAll('img').length > 1")
            page.type_text("textarea", QUESTION)
            page.press_enter()
            page.wait_for("document.body.innerText.includes('the model server refused')")
    finally:
        app.send_signal(signal.SIGINT)
        app.wait()
