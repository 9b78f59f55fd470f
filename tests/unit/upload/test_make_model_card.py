"""A model card says what the run's files log, in the form that hubs read, and nothing of the machine it was made on."""

import csv
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from helpers.card_inputs import (
    MAX_PIXELS,
    MIN_PIXELS,
    MODEL_CONFIG,
    NUM_TOKENS_SEEN,
    CardInputs,
    build_card_inputs,
    declare,
    edit_json,
    write_json,
)
from helpers.report_inputs import FIDELITY, LAYOUT
from scripts.donors.model_files import model_sha256
from scripts.upload.front_matter import read_front_matter

APACHE = "\n                                 Apache License\n                           Version 2.0, January 2004\n"


def make(inputs: CardInputs) -> tuple[dict[str, Any], str]:
    """Front matter and body of the card that the program writes."""
    inputs.make()
    text = inputs.card_path.read_text(encoding="utf-8")
    return read_front_matter(text), text.partition("\n---\n")[2]


@pytest.fixture
def inputs(tmp_path: Path) -> CardInputs:
    return build_card_inputs(tmp_path / "inputs")


def row(body: str, label: str) -> str:
    """The one row of a table that begins with this label."""
    (found,) = (line for line in body.splitlines() if line.startswith(f"| {label} |"))
    return found


def test_the_front_matter_names_both_donors_the_datasets_of_hubs_and_no_more_than_is_known(inputs: CardInputs) -> None:
    head, _ = make(inputs)
    assert head.keys() == {"license", "library_name", "pipeline_tag", "tags", "base_model", "datasets", "model-index"}
    assert (head["library_name"], head["pipeline_tag"]) == ("transformers", "image-text-to-text")
    assert head["base_model"] == ["lab/Sees-7B", "lab/Talks-8B"]
    assert head["datasets"] == ["lab/pretrain", "swift/llava-data"]


def test_the_score_of_the_stage_is_the_tables(inputs: CardInputs) -> None:
    with open(inputs.report.scores_path, newline="", encoding="utf-8") as file:
        rows = {found["model"]: found for found in csv.DictReader(file) if found["group"] == "overall"}
    head, body = make(inputs)
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"] == {"name": "digits", "type": "digits", "split": "test"}
    (metric,) = result["metrics"]
    assert (metric["type"], metric["value"]) == ("accuracy", float(rows["stage2"]["accuracy"]))
    ends = [f"{100 * float(rows['stage2'][name]):.1f}" for name in ("ci95_low", "ci95_high")]
    assert (
        metric["name"] == f"accuracy on {rows['stage2']['num_questions']} questions (95 % interval {'–'.join(ends)} %)"
    )
    assert list(rows) == ["graft", "stage1", "stage2", "stage2-shuffled"]
    for model, found in rows.items():
        said = row(body, f"**{model}**" if model == "stage2" else model)
        assert f"| {found['num_questions']} | {found['num_correct']} | {100 * float(found['accuracy']):.1f} |" in said


def test_each_figure_of_the_training_comes_from_its_file(inputs: CardInputs) -> None:
    _, body = make(inputs)
    stage2 = body.partition("### stage2")[2]
    assert row(stage2, "tokens seen") == f"| tokens seen | {NUM_TOKENS_SEEN:,} |"
    assert row(stage2, "samples seen") == "| samples seen | 3,840 |"
    assert row(stage2, "rows") == "| rows | 6,582, pictures 6,582 |"
    assert row(stage2, "sha256 of the data") == f"| sha256 of the data | {'ab' * 32} |"
    assert row(stage2, "processes") == "| processes | 8, DeepSpeed zero2 |"
    assert row(stage2, "`learning_rate`") == "| `learning_rate` | 0.00123 |"
    assert row(stage2, "seed") == "| seed | 42 |"
    assert "ms-swift 4.6.0" in row(stage2, "versions")
    assert "perplexity of the donor | 4.095" in body
    assert "36 layers, hidden size 4096, 32 heads, 8 key/value heads, vocabulary 151936, at most 40960 tokens" in body
    assert "commit 0123456789abcdef0123456789abcdef01234567" in body


def test_the_card_of_stage_1_says_nothing_of_the_training_of_stage_2(tmp_path: Path) -> None:
    head, body = make(build_card_inputs(tmp_path / "inputs", "stage1"))
    assert head["datasets"] == ["lab/pretrain"]
    assert "### stage1" in body
    assert "### stage2" not in body
    assert "No control with shuffled pictures, or without any, was run for stage1" in body


def test_no_path_of_the_machine_and_no_name_of_its_user_gets_into_the_card(inputs: CardInputs) -> None:
    for role in ("vl", "llm"):
        directory = str(inputs.donor_dir(role))
        source = {"kind": "local", "path": directory}
        edit_json(inputs.manifest_path(role), source=source)
    head, body = make(inputs)
    assert "base_model" not in head, "a directory's name is no id of a hub"
    whole = inputs.card_path.read_text(encoding="utf-8")
    for place in (str(inputs.directory), "/home", "somebody", "secret", str(Path.cwd())):
        assert place not in whole
    assert "own.jsonl#20" in row(body.partition("### stage2")[2], "data")


def test_a_license_that_no_file_states_is_not_invented(inputs: CardInputs) -> None:
    (inputs.donor_dir("vl") / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Sees")
    head, body = make(inputs)
    assert head["license"] == "unknown"
    assert row(body, "license") == "| license | apache-2.0, says its README.md | not known: its files do not say |"
    assert "**License not known.** Look at the donors' pages" in body


@pytest.mark.parametrize(
    ("of_llm", "expected"),
    [
        ({"README.md": "---\nlicense: apache-2.0\n---\n"}, "apache-2.0"),
        ({"LICENSE": APACHE}, "apache-2.0"),
        ({"README.md": "no front matter", "LICENSE": APACHE}, "apache-2.0"),
        ({"README.md": "---\nlicense: other\nlicense_name: own\n---\n"}, "other"),
        ({"LICENSE": "You may do this and that."}, "other"),
        ({"README.md": "---\nlicense: mit\n---\n"}, "other"),
        ({"NOTICE": APACHE}, "unknown"),
    ],
)
def test_the_license_is_what_both_donors_state(inputs: CardInputs, of_llm: dict[str, str], expected: str) -> None:
    (inputs.donor_dir("vl") / "LICENSE.txt").write_text(APACHE)
    for name, text in of_llm.items():
        (inputs.donor_dir("llm") / name).write_text(text)
    head, _ = make(inputs)
    assert head["license"] == expected


def test_the_donors_license_texts_lie_beside_the_card_and_all_may_read_them(inputs: CardInputs) -> None:
    (inputs.donor_dir("vl") / "LICENSE").write_text(APACHE)
    (inputs.donor_dir("llm") / "NOTICE").write_text("made by")
    umask = os.umask(0o077)
    try:
        _, body = make(inputs)
    finally:
        os.umask(umask)
    assert "Texts and notices: `LICENSE.vl`, `NOTICE.llm`." in body
    assert (inputs.checkpoint_dir / "LICENSE.vl").read_text() == APACHE
    for name in ("README.md", "LICENSE.vl", "NOTICE.llm"):
        assert stat.S_IMODE((inputs.checkpoint_dir / name).stat().st_mode) == 0o644


def test_a_card_leaves_the_models_identity_as_it_was(inputs: CardInputs) -> None:
    (inputs.donor_dir("vl") / "LICENSE").write_text(APACHE)
    before = model_sha256(inputs.checkpoint_dir)
    make(inputs)
    assert model_sha256(inputs.checkpoint_dir) == before


def test_a_graft_that_lost_something_is_not_called_faithful(inputs: CardInputs) -> None:
    inputs.report.write_json(
        LAYOUT.fidelity,
        FIDELITY
        | {
            "bit_equal": False,
            "dropped": {"num_tensors": 72, "num_parameters": 9216, "kinds": {}},
            "kl_mean_nats": 1.183,
        },
    )
    _, body = make(inputs)
    assert "**were not the language donor's**" in body
    assert "| tensors of the donor left out | 72 |" in body
    assert "bit for bit" not in body


def test_a_stock_architecture_is_loaded_without_code_of_the_directory(inputs: CardInputs) -> None:
    text = MODEL_CONFIG["text_config"]
    assert isinstance(text, dict)
    flat = {key: value for key, value in MODEL_CONFIG.items() if key not in ("auto_map", "text_config", "dtype")}
    write_json(
        inputs.checkpoint_dir / "config.json", flat | text | {"torch_dtype": "bfloat16", "model_type": "qwen2_5_vl"}
    )
    declare(inputs, "stage2")
    head, body = make(inputs)
    assert "trust_remote_code" not in body
    assert f'{{"shortest_edge": {MIN_PIXELS}, "longest_edge": {MAX_PIXELS}}}' in body
    assert head["tags"] == ["vlgraft", "qwen2_5_vl"]


def test_a_stage_that_was_not_evaluated_has_no_result(inputs: CardInputs) -> None:
    path = inputs.report.scores_path
    lines = [line for line in path.read_text().splitlines(keepends=True) if not line.startswith("stage2")]
    path.write_text("".join(lines))
    head, body = make(inputs)
    assert "model-index" not in head
    assert "**stage2 itself was not evaluated.**" in body


def test_the_same_inputs_give_the_same_card(inputs: CardInputs) -> None:
    first, second = make(inputs), make(inputs)
    assert first == second


def test_a_secret_in_the_settings_of_an_earlier_version_is_not_in_the_card(inputs: CardInputs) -> None:
    for stage in ("stage1", "stage2"):
        edit_json(
            inputs.directory / LAYOUT.checkpoint_dir(stage) / "settings.json",
            environment={"WANDB_API_KEY": "0a1b2c3d", "HTTPS_PROXY": "http://me:pw-of-me@proxy"},
        )
        declare(inputs, stage)
    _, body = make(inputs)
    assert row(body.partition("### stage2")[2], "`WANDB_API_KEY`") == "| `WANDB_API_KEY` | (secret) |"
    assert "0a1b2c3d" not in inputs.card_path.read_text()
    assert "pw-of-me" not in inputs.card_path.read_text()


def test_what_a_killed_run_left_beside_the_card_is_removed(inputs: CardInputs) -> None:
    """It would be uploaded, or refused by the check of the checkpoint until somebody removes it."""
    leftover = inputs.card_path.with_name(".README.md.99.tmp")
    leftover.write_text("half a ca")
    inputs.make()
    assert not leftover.exists()


def test_texts_of_the_users_are_shown_letter_by_letter(inputs: CardInputs) -> None:
    """No markup of theirs is markup of the card, and a table keeps its columns."""
    system = "You are <b>{model}</b> | *loud* `x` [a](b) _c_ d_e &amp; & ~~f~~ \\"
    edit_json(inputs.settings_path("stage2"), flags={"learning_rate": 0.00123, "system": system})
    declare(inputs, "stage2")
    head, body = make(inputs)
    shown = row(body, "`system`")
    assert shown == (
        r"| `system` | You are \<b\>{model}\</b\> \| \*loud\* \`x\` \[a\](b) \_c\_ d_e \&amp; & \~~f\~~ \\ |"
    )
    assert head["license"]
