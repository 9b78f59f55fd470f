"""A card from half of the inputs, and a checkpoint that must not be uploaded: one clear line, and nothing written."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.card_inputs import CardInputs, build_card_inputs, edit_json, write_json
from helpers.report_inputs import LAYOUT
from helpers.small_checkpoint import write_small_checkpoint
from scripts.common.errors import UserError
from scripts.graft.own_code import AUTO_MAP, CODE_DIR, CODE_FILES
from scripts.upload import check_checkpoint

CARD = "---\nlicense: apache-2.0\nlibrary_name: transformers\npipeline_tag: image-text-to-text\n---\n\n# A model\n"


@pytest.fixture
def inputs(tmp_path: Path) -> CardInputs:
    return build_card_inputs(tmp_path / "inputs")


def card_refusal(inputs: CardInputs) -> str:
    with pytest.raises(UserError) as caught:
        inputs.make()
    assert not inputs.card_path.exists()
    return str(caught.value)


VL_MANIFEST, LLM_MANIFEST = (
    f"resources/donors/huggingface--lab--{name}--main.json" for name in ("Sees-7B", "Talks-8B")
)
SETTINGS_OF_STAGE1 = f"{LAYOUT.checkpoint_dir('stage1')}/settings.json"


@pytest.mark.parametrize(
    "name",
    [
        LAYOUT.metrics("stage1"), LAYOUT.metrics("stage2"), SETTINGS_OF_STAGE1,
        f"{LAYOUT.checkpoint_dir('stage2')}/config.json", f"{LAYOUT.checkpoint_dir('stage2')}/preprocessor_config.json",
        LAYOUT.dataset_check("stage1"), VL_MANIFEST, LLM_MANIFEST, LAYOUT.ledger, LAYOUT.fidelity,
        LAYOUT.scores("digits"), LAYOUT.scores_provenance("digits"),
    ],
)  # fmt: skip
def test_an_input_that_is_missing_is_named(inputs: CardInputs, name: str) -> None:
    (inputs.directory / name).unlink()
    assert card_refusal(inputs).startswith(f"{name}: not found")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (LAYOUT.metrics("stage2"), {"num_tokens_seen": None}, "num_tokens_seen: null found; expected int"),
        (LAYOUT.metrics("stage2"), {"checkpoint_sha256": "other"}, "evaluate stage2 again"),
        (SETTINGS_OF_STAGE1, {"stage": "stage2"}, "settings of stage2 found; expected those of stage1"),
        (SETTINGS_OF_STAGE1, {"flags": 5}, "flags: 5 found"),
        (LLM_MANIFEST, {"role": "vl"}, f"{LLM_MANIFEST}: role vl found; expected llm"),
    ],
)
def test_inputs_that_lack_something_or_are_of_another_run_are_refused(
    inputs: CardInputs, name: str, changes: dict[str, object], message: str
) -> None:
    edit_json(inputs.directory / name, **changes)
    assert message in card_refusal(inputs)


def test_settings_of_a_checkpoint_that_were_edited_by_hand_make_no_card(inputs: CardInputs) -> None:
    edit_json(inputs.settings_path("stage2"), flags={"learning_rate": 0.5})
    message = card_refusal(inputs)
    assert message.startswith(f"{LAYOUT.checkpoint_dir('stage2')}/settings.json: edited since it was written")
    assert LAYOUT.metrics("stage2") in message


@pytest.mark.parametrize("name", [LAYOUT.metrics("stage1"), LAYOUT.metrics("stage2"), LAYOUT.fidelity, LLM_MANIFEST])
def test_a_record_that_was_edited_by_hand_makes_no_card(inputs: CardInputs, name: str) -> None:
    inputs.report.edit_json(name, versions={"torch": "0"})
    path = inputs.report.path(name)
    found = json.loads(path.read_text())
    if "role" in found:
        path.write_text(json.dumps({key: value for key, value in found.items() if key != "versions"} | {"dir": "/x"}))
    assert card_refusal(inputs).startswith(f"{name}: edited by hand, or of another version: its content has sha256 ")


def test_an_edited_ledger_and_a_changed_checkpoint_make_no_card(inputs: CardInputs) -> None:
    ledger_path = inputs.report.path(LAYOUT.ledger)
    text = ledger_path.read_text()
    ledger_path.write_text(text.replace("the vision donor's vision tower", "the tower", 1))
    assert f"expected by {LAYOUT.fidelity}: it was edited since" in card_refusal(inputs)
    ledger_path.write_text(text)
    path = inputs.checkpoint_dir / "preprocessor_config.json"
    path.write_text(path.read_text() + " ")
    assert f"declared by {LAYOUT.metrics('stage2')}; a file was changed" in card_refusal(inputs)


@pytest.fixture
def checkpoint_dir(tmp_path: Path) -> Path:
    """All that can be seen from the files alone is right."""
    directory = write_small_checkpoint(tmp_path / "checkpoint", num_shards=2)
    (directory / "README.md").write_text(CARD)
    write_json(directory / "config.json", {"model_type": "qwen2_5_vl_qwen3", "auto_map": AUTO_MAP})
    for name in CODE_FILES:
        shutil.copy(CODE_DIR / name, directory)
    for name in ("generation_config.json", "tokenizer_config.json", "preprocessor_config.json"):
        write_json(directory / name, {})
    for path in directory.iterdir():
        path.chmod(0o644)
    return directory


def edited(name: str, **changes: object) -> Callable[[Path], None]:
    return lambda directory: edit_json(directory / name, **changes)


def removed(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def written(name: str, text: str) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        (directory / name).write_text(text)
        (directory / name).chmod(0o644)

    return write


SHARD = "model-00002-of-00002.safetensors"
ELSEWHERE = {"AutoConfig": "lab/code--configuration_x.Config"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (removed("README.md"), "README.md: not found; an upload needs README.md; make the model card"),
        (removed("tokenizer_config.json"), "tokenizer_config.json: not found"),
        (removed("chat_template.jinja"), "chat_template.jinja: not found"),
        (
            removed("configuration_qwen2_5_vl_qwen3.py"),
            "configuration_qwen2_5_vl_qwen3.py: not found, though config.json's auto_map names it",
        ),
        (edited("config.json", auto_map=ELSEWHERE), "code of another repository"),
        (
            edited("tokenizer_config.json", auto_map={"AutoTokenizer": ["x.T", None]}),
            "tokenizer_config.json: auto_map is",
        ),
        (edited("preprocessor_config.json", auto_map={"A": "lab/code--x.P"}), "preprocessor_config.json: auto_map is"),
        (
            written("processor_config.json", '{"video_processor": {"auto_map": {"A": "x.V"}}}'),
            "video_processor.auto_map is",
        ),
        (written(CODE_FILES[1], "class Model: ...\n"), f"{CODE_FILES[1]}: sha256"),
        (written("tokenization_x.py", ""), "tokenization_x.py: code, or a file that may run code"),
        (written("pytorch_model.bin", ""), "pytorch_model.bin: code, or a file that may run code"),
        (written("adapter_config.json", "{}"), "adapter_config.json: found, and transformers"),
        (removed(SHARD), f"{SHARD}: not found, though model.safetensors.index.json names it"),
        (written("model-00003-of-00003.safetensors", ""), "a shard that model.safetensors.index.json does not name"),
        (lambda directory: (directory / SHARD).chmod(0o600), "mode 0600 found; expected 0644"),
        (written("optimizer.pt", ""), "optimizer.pt: left by a training"),
        (written("args.json", "{}"), "args.json: left by a training"),
        (written(".snakemake_timestamp", ""), ".snakemake_timestamp: left by a training"),
        (
            edited("config.json", _name_or_path="/data/somebody/graft"),
            "_name_or_path is '/data/somebody/graft', a path",
        ),
        (written("configuration_qwen2_5_vl_qwen3.py", f"# see {Path.cwd()}/notes\n"), "a path of this machine"),
        (
            written("settings.json", '{"environment": {"WANDB_API_KEY": "0a1b2c"}}'),
            "settings.json: environment.WANDB_API_KEY holds a secret",
        ),
        (
            edited("generation_config.json", source="https://me:pw@hub.example/x"),
            "generation_config.json: it holds a secret",
        ),
        (written("README.md", f"{CARD}Get it with hf_abcdefghijklmnopqrst.\n"), "README.md: it holds a secret"),
        (written("README.md", "# A model"), "no front matter that a hub could read (its first line is '# A model'"),
        (written("README.md", "---\nlicense: [\n---\n"), "no front matter that a hub could read (no YAML"),
        (written("README.md", "---\nlicense: mit\n"), "no second line of ---"),
        (written("README.md", CARD.replace("license: apache-2.0\n", "")), "no license in its front matter"),
    ],
)
def test_a_checkpoint_that_must_not_be_uploaded_is_refused_with_the_reason(
    checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(checkpoint_dir)
    arguments = [
        "--checkpoint-dir",
        str(checkpoint_dir),
        "--python",
        sys.executable,
        "--output",
        str(tmp_path / "o.json"),
    ]
    monkeypatch.setattr(sys, "argv", ["check_checkpoint.py", *arguments])
    with pytest.raises(UserError) as caught:
        check_checkpoint.main()
    assert message in str(caught.value)
    assert not (tmp_path / "o.json").exists()


def test_what_is_seen_from_the_files_of_a_sound_checkpoint_is_not_complained_of(checkpoint_dir: Path) -> None:
    """Only loading is left: this one has no model to load, and this environment no torch."""
    with pytest.raises(UserError, match=r"cannot be used by .* with nothing of this repository"):
        check_checkpoint.check(checkpoint_dir, Path(sys.executable))


def test_words_that_look_like_paths_are_no_paths_in_a_vocabulary(checkpoint_dir: Path) -> None:
    for name in ("tokenizer.json", "vocab.json"):
        write_json(checkpoint_dir / name, {"a": "/usr/bin", "b": str(Path.cwd())})
    check_checkpoint.check_no_local_paths(checkpoint_dir)


def test_python_and_the_hubs_libraries_get_nothing_from_outside(tmp_path: Path) -> None:
    inherited = {
        "PYTHONPATH": "/x",
        "HF_TOKEN": "secret",
        "HF_MODULES_CACHE": "/x",
        "PATH": "/bin",
        "APPTAINER_BIND": "/scratch",
    }
    found = check_checkpoint.isolated_environment(inherited, Path("results"), tmp_path)
    assert found["PATH"] == "/bin"
    assert not {"PYTHONPATH", "HF_TOKEN"} & found.keys()
    assert found["HF_HUB_OFFLINE"] == "1"
    assert found["APPTAINER_BIND"] == f"/scratch,{Path('results').absolute()}"
    for name in ("HF_HOME", "HF_MODULES_CACHE"):
        assert found[name].startswith(str(tmp_path))


def test_an_interpreter_that_cannot_be_started_is_named(checkpoint_dir: Path) -> None:
    with pytest.raises(UserError, match=r"no/python: cannot be started"):
        check_checkpoint.check(checkpoint_dir, Path("no/python"))


def test_the_reason_of_a_failure_is_its_exception() -> None:
    lines = ["Traceback (most recent call last):", '  File "x.py"', "torch.FooError: it broke", "because of that", ""]
    assert check_checkpoint.failure_reason(lines) == "torch.FooError: it broke because of that"
    assert check_checkpoint.failure_reason(["Killed", ""]) == "Killed"
    assert check_checkpoint.failure_reason([]) == ""
    assert (
        json.dumps(check_checkpoint.failure_reason(["x" * 5000])).count("x") == check_checkpoint.MAX_REASON_CHARACTERS
    )
