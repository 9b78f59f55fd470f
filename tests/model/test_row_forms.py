"""Each form of row that ms-swift documents, prepared by us and by ms-swift alone: the same tokens, labels and pictures."""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.graft_run import make_graft

pytest.importorskip("swift", reason="the train environment has it")

MAX_PIXELS = 56 * 56


def picture(shade: int, size: tuple[int, int] = (60, 40)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, (shade, 255 - shade, 7)).save(content, "PNG")
    return content.getvalue()


ENCODED_PICTURE = base64.b64encode(picture(90)).decode()
USER, ANSWER = {"role": "user", "content": "<image>What is it?"}, {"role": "assistant", "content": "A chair."}
PLAIN = {"role": "user", "content": "What is it?"}
TURNS = [USER, ANSWER]
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CALL = {"name": "weather", "arguments": {"city": "Oslo"}}

# Of each form some rows. A text is the file itself.
FORMS: dict[str, list[dict[str, Any]] | str] = {
    "messages": [{"messages": TURNS, "images": ["a.png"]}, {"messages": [PLAIN, ANSWER, PLAIN, ANSWER], "images": []}],
    "system": [{"messages": [{"role": "system", "content": "You help."}, PLAIN, ANSWER], "images": ["a.png", "b.png"]}],
    "loss of a turn": [
        {"messages": [PLAIN, {**ANSWER, "loss": False}, PLAIN, {**ANSWER, "loss": True}]},
        {"messages": [PLAIN, ANSWER]},
    ],
    "image of one": [{"messages": TURNS, "image": "a.png"}, {"messages": TURNS, "image": "b.png"}],
    "ShareGPT": [
        {"conversations": [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "A."}], "image": "a.png"},
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}], "image": None},
    ],
    "ShareGPT with a system": [
        {"system": "You help.", "conversation": [{"human": "a", "assistant": "b"}, {"human": "c", "assistant": "d"}]}
    ],
    "query and response": [
        {"query": "<image>What?", "response": "A.", "history": [["Hm?", "Yes."]], "images": ["a.png"]},
        {"query": "Why?", "response": "So.", "history": [], "images": []},
    ],
    "query with a system": [{"system": "Be short.", "query": "Why?", "response": "So."}],
    "prompt and completion": [{"prompt": "Why?", "completion": "So."}],
    "alpaca": [
        {"instruction": "Translate.", "input": "cat", "output": "katt"},
        {"instruction": "Sing.", "input": "", "output": "La."},
    ],
    "answers alone": [{"messages": [{"role": "assistant", "content": "I love music."}]}],
    "pictures in base64": [
        {"messages": TURNS, "images": [f"data:image/png;base64,{ENCODED_PICTURE}"]},
        {"messages": TURNS, "images": [ENCODED_PICTURE]},
    ],
    "pictures as sections": [
        {"messages": TURNS, "images": [{"bytes": None, "path": "a.png"}]},
    ],
    "parts of a turn": [
        {"messages": [
            {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}]}, ANSWER,
        ]},
        {"messages": [
            {"role": "user", "content": [{"type": "text", "text": "And?"}, {"type": "image_url", "image_url": {"url": "b.png"}}]},
            ANSWER,
        ]},
    ],
    "objects": [
        {
            "messages": [
                {"role": "user", "content": "<image>Find <ref-object>"},
                {"role": "assistant", "content": "<bbox> and <bbox>"},
            ],
            "images": ["a.png"],
            "objects": {"ref": ["the dog"], "bbox": [[33, 11, 9, 30], [1, 2, 50, 39]]},
        },
        {"messages": TURNS, "images": ["b.png"]},
    ],
    "objects of other pictures": [
        {
            "messages": [{"role": "user", "content": "<image><image>Find it"}, {"role": "assistant", "content": "<bbox>"}],
            "images": ["a.png", "b.png"],
            "objects": {"ref": [], "bbox": [[0.1, 0.2, 0.3, 0.4]], "bbox_type": "norm1", "image_id": [1]},
        }
    ],
    "tools": [
        {
            "tools": [TOOL],
            "messages": [
                {"role": "user", "content": "Weather in Oslo?"}, {"role": "tool_call", "content": json.dumps(CALL)},
                {"role": "tool_response", "content": "rain"}, {"role": "assistant", "content": "It rains."},
            ],
        },
        {
            "tools": json.dumps([TOOL]),
            "messages": [
                {"role": "user", "content": "Weather in Oslo?"}, {"role": "tool_call", "content": CALL},
                {"role": "tool", "content": "rain"}, {"role": "assistant", "content": "It rains."},
            ],
        },
    ],
    "tools as OpenAI writes them": [
        {
            "tools": [TOOL],
            "messages": [
                {"role": "user", "content": "Weather in Oslo?"},
                {"role": "assistant", "content": None, "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
                ]},
                {"role": "tool", "tool_call_id": "1", "content": "rain"}, {"role": "assistant", "content": "It rains."},
            ],
        }
    ],
    "channel": [{"messages": [PLAIN, ANSWER], "channel": "a"}, {"messages": [PLAIN, ANSWER], "channel": "b"}],
    "empty lines and CRLF.jsonl": "\r\n\r\n  \r\n".join([json.dumps({"messages": [PLAIN, ANSWER]})] * 2) + "\r\n",
    "byte order mark.jsonl": "\ufeff" + "\n".join([json.dumps({"messages": [PLAIN, ANSWER]})] * 2),
    "other ends of lines.jsonl": "\n".join(
        json.dumps({"messages": [{"role": "user", "content": f"a{mark}b?"}, ANSWER]}, ensure_ascii=False)
        for mark in ("\u2028", "\u2029", "\x85")
    ),
    "array.json": "[\n  " + ",\n  ".join(json.dumps({"messages": TURNS, "images": [f"{name}.png"]}) for name in "ab") + "\n]\n",
    "table.csv": 'query,response,images\r\n"<image>What, ""this""?",A.,a.png\r\n"Why\nso?",So.,b.png\r\n',
    "table of messages.csv": "messages\n" + '"' + json.dumps([PLAIN, ANSWER]).replace('"', '""') + '"\n',
}  # fmt: skip


@pytest.fixture(scope="module")
def encodings(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of each form: `alone`, what ms-swift makes of the user's file, and `ours`, what it makes of the prepared one."""
    directory = tmp_path_factory.mktemp("forms")
    graft_dir, _ = make_graft(root, directory, "qwen3", "fresh", dtype="float32")
    for name, shade in (("a", 10), ("b", 200)):
        (directory / f"{name}.png").write_bytes(picture(shade))
    paths = {}
    for number, (form, rows) in enumerate(FORMS.items()):
        paths[form] = directory / f"form{number}{Path(form).suffix or '.jsonl'}"
        text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        paths[form].write_text(text, newline="")
    finished = subprocess.run(
        [sys.executable, root / "tests/helpers/encode_by_swift.py", graft_dir, *paths.values()],
        # ms-swift looks for relative pictures where it is started.
        cwd=directory, capture_output=True, text=True,
        env={
            **os.environ, "MODELSCOPE_CACHE": str(directory / "cache"), "USE_HF": "1", "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(root), "ENCODING_ENVIRONMENT": json.dumps({"MAX_PIXELS": MAX_PIXELS}),
        },
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-4000:]
    found = json.loads(finished.stdout.splitlines()[-1])
    return {form: found[str(path)] for form, path in paths.items()}


@pytest.mark.parametrize("form", FORMS)
def test_a_prepared_row_trains_as_ms_swift_alone_would_train_it(encodings: dict[str, Any], form: str) -> None:
    alone, ours = encodings[form]["alone"], encodings[form]["ours"]
    assert ours == alone
    assert len(ours) == (len(FORMS[form]) if isinstance(FORMS[form], list) else len(alone)) > 0


@pytest.mark.parametrize("form", FORMS)
def test_the_check_counts_the_tokens_that_training_will_have(encodings: dict[str, Any], form: str) -> None:
    encoded, counted = encodings[form]["ours"], encodings[form]["counted"]
    for row, (num_tokens, num_picture_tokens, num_trained, problem) in zip(encoded, counted, strict=True):
        assert problem == ""
        assert num_tokens == len(row["input_ids"])
        assert num_trained == sum(label != -100 for label in row["labels"])
        assert (num_picture_tokens > 0) == (row["pixels"] is not None)
