"""The configuration is validated before anything is planned; each finding is one line that starts with the key."""

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.common.errors import UserError
from scripts.workflow.configuration import findings, validate

CONFIG_FILES = ["config.yaml", "config/demo.yaml", "config/simple_vl_8b.yaml"]


@pytest.fixture
def config(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "config/demo.yaml").read_text())


def lines_for(config: dict[str, Any], root: Path) -> list[str]:
    schema = yaml.safe_load((root / "config/schema.yaml").read_text())
    return findings(config, schema, json.loads((root / "config/known_flags.json").read_text()))


def changed(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one key set (dots separate levels)."""
    result = copy.deepcopy(config)
    *parents, last = path.split(".")
    section = result
    for parent in parents:
        section = section[parent]
    section[last] = value
    return result


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("demo.vision_donor.vision.hidden_size", 65), ("demo.vision_donor.language.hidden_size", 97),
        ("demo.language_donor.language.num_key_value_heads", 3), ("demo.language_donor.language.head_dim", 7),
        ("demo.language_donor.adam_beta2", 1), ("demo.language_donor.dropout", 2.0), ("demo.digits.max_scale_change", 3),
        ("evaluate.vlmevalkit.img_size", 0),
    ],
)  # fmt: skip
def test_numbers_of_the_demo_that_do_not_go_together_are_refused(
    config: dict[str, Any], root: Path, key: str, value: float
) -> None:
    lines = lines_for(changed(config, key, value), root)
    assert len(lines) == 1 and lines[0].startswith(f"{key}: ")


@pytest.mark.parametrize("name", CONFIG_FILES)
def test_every_shipped_configuration_is_valid(root: Path, name: str) -> None:
    assert lines_for(yaml.safe_load((root / name).read_text()), root) == []


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("grafft", {}, "grafft: unknown key (did you mean graft?)"),
        ("graft.aligner_", "fresh", "graft.aligner_: unknown key (did you mean aligner?)"),
        ("graft.aligner", "new", 'graft.aligner: "new" found, one of "fresh", "keep" expected'),
        ("seed", "zero", 'seed: "zero" found, integer expected'),
        ("seed", -1, "seed: -1 is less than the minimum of 0"),
        ("stage1.flags.learning_rate", "5e-6", "stage1.flags.learning_rate: \"5e-6\" found, number expected (YAML reads"),
        ("stage1.flags.learning_rate", 0, "stage1.flags.learning_rate: 0 is less than or equal to the minimum of 0"),
        ("stage1.flags.warmup_ratio", 1.5, "stage1.flags.warmup_ratio: 1.5 is greater than or equal to the maximum of 1"),
        ("stage2.flags.learning_rte", 1.0, "stage2.flags.learning_rte: unknown flag of `swift sft` (did you mean learning_r"),
        ("stage2.flags.train_type", "full", "stage2.flags.train_type: renamed in ms-swift 4; write tuner_type"),
        ("stage2.flags.output_dir", "x", "stage2.flags.output_dir: set by vlgraft itself"),
        ("stage2.flags.weight_decay", "much", 'stage2.flags.weight_decay: "much" found, float expected'),
        ("evaluate.models", ["stage3"], 'evaluate.models[0]: "stage3" found, parent, graft,'),
        ("evaluate.serve.flags.max_new_tokns", 8, "evaluate.serve.flags.max_new_tokns: unknown flag of `swift deploy` (did you"),
        ("evaluate.serve.flags.learning_rate", 1.0, "evaluate.serve.flags.learning_rate: unknown flag of `swift deploy`"),
        ("evaluate.serve.flags.attn_impl", "x", "evaluate.serve.flags.attn_impl: x found, one of eager, sdpa"),
        ("evaluate.serve.flags.host", "0.0.0.0", "evaluate.serve.flags.host: set by vlgraft itself"),
    ],
)  # fmt: skip
def test_a_wrong_key_or_value_is_one_line_that_names_it(
    config: dict[str, Any], root: Path, path: str, value: Any, expected: str
) -> None:
    lines = lines_for(changed(config, path, value), root)
    assert len(lines) == 1, lines
    assert lines[0].startswith(expected)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("stage1.flags.freeze_llm", False, "stage1.flags: stage 1 trains the aligner alone"),
        ("stage2.flags.num_train_epochs", 3, "stage2.flags: give exactly one of max_steps and num_train_epochs"),
        ("stage2.flags.packing", True, "stage2.flags.packing: True found; packed rows are not counted yet; remove it"),
        ("stage2.flags.bf16", True, "stage2.flags.torch_dtype: float32 contradicts bf16/fp16: true"),
        ("donors.vl", {"kind": "local", "path": "x"}, "donors.vl.kind: local contradicts the other donor's demo"),
        ("demo.digits.size_px", "112", 'demo.digits.size_px: "112" found; expected int'),
        (
            "demo.vision_donor.vision.width",
            3,
            "demo.vision_donor.vision.width: unknown key; expected depth, hidden_size",
        ),
        ("donors.llm", {"kind": "demo", "path": "x"}, "donors.llm.path: contradicts kind demo"),
        ("donors.llm", {"kind": "modelscope", "id": "a/b"}, "donors.llm.revision: missing; kind modelscope needs it"),
        ("evaluate.serve.flags.vllm_max_model_len", 8, "evaluate.serve.flags.vllm_max_model_len: contradicts backend"),
        ("evaluate.models", ["parent"], "evaluate.models: parent contradicts donors.vl.kind demo"),
        (
            "stage2.flags.attn_impl",
            "flash_attn",
            "stage2.flags.attn_impl: flash_attn found, but environments.train: train",
        ),
        (
            "evaluate.serve.flags.attn_impl",
            "flash_attention_2",
            "evaluate.serve.flags.attn_impl: flash_attention_2 found",
        ),
        (
            "environments",
            {"kind": "apptainer", "train": "train_flash_attn"},
            "environments.train: train_flash_attn contra",
        ),
        ("evaluate.vlmevalkit.reuse", True, "evaluate.vlmevalkit.reuse: true would take old answers"),
        ("evaluate.num_seeds", 4, "evaluate.num_seeds: 4 contradicts evaluate.vlmevalkit.temperature: 0"),
        ("evaluate.benchmarks", ["digit"], "evaluate.benchmarks[0]: digit is unknown"),
    ],
)
def test_options_that_contradict_each_other_are_named(
    config: dict[str, Any], root: Path, path: str, value: Any, expected: str
) -> None:
    lines = lines_for(changed(config, path, value), root)
    assert any(line.startswith(expected) for line in lines), lines


def test_a_refit_goes_with_the_stock_architecture_alone(config: dict[str, Any], root: Path) -> None:
    affine = changed(config, "graft.calibration", "affine")
    (line,) = lines_for(affine, root)
    assert line.startswith("graft.calibration: affine contradicts graft.architecture: qwen3, which loses nothing")
    assert lines_for(changed(affine, "graft.architecture", "qwen2_5_vl"), root) == []


def test_a_refit_is_not_judged_by_the_text_that_it_was_made_on(config: dict[str, Any], root: Path) -> None:
    affine = changed(changed(config, "graft.architecture", "qwen2_5_vl"), "graft.calibration", "affine")
    (line,) = lines_for(changed(affine, "fidelity.text", "texts/calibration.txt"), root)
    assert line.startswith("fidelity.text: texts/calibration.txt is also calibration.text")


def test_nothing_to_train_is_refused(config: dict[str, Any], root: Path) -> None:
    for key in ("freeze_vit", "freeze_llm", "freeze_aligner"):
        config = changed(config, f"stage2.flags.{key}", True)
    assert any("nothing would train" in line for line in lines_for(config, root))


def test_a_missing_key_is_named(config: dict[str, Any], root: Path) -> None:
    del config["stage2"]
    assert lines_for(config, root) == ["stage2: missing; each configuration file is complete in itself"]


def test_all_findings_are_reported_at_once(config: dict[str, Any], root: Path) -> None:
    config["seed"] = -1
    config["graft"]["aligner"] = "new"
    with pytest.raises(UserError) as error:
        validate(config, root / "config")
    assert str(error.value).count("\n") == 2


def test_several_seeds_go_with_the_temperature_of_the_backend_that_is_used(config: dict[str, Any], root: Path) -> None:
    seeds = changed(changed(config, "evaluate.num_seeds", 4), "evaluate.backend", "native")
    (line,) = lines_for(seeds, root)
    assert line.startswith("evaluate.num_seeds: 4 contradicts evaluate.native.temperature: 0")
    assert lines_for(changed(seeds, "evaluate.native.temperature", 0.6), root) == []


def test_replicas_do_not_share_a_port(config: dict[str, Any], root: Path) -> None:
    with_port = changed(config, "evaluate.serve.flags.port", 8000)
    assert lines_for(with_port, root) == []
    (line,) = lines_for(changed(with_port, "evaluate.serve.num_replicas", 2), root)
    assert line.startswith("evaluate.serve.flags.port: contradicts num_replicas above 1")


@pytest.mark.parametrize("key", ["choice_prompt", "open_prompt"])
@pytest.mark.parametrize(
    "wrong", ["{", "}", "{}", "{0}", "{option}", "{question.text}", "{question[text]}", "{letters:d}"]
)
def test_a_prompt_that_cannot_be_filled_is_one_finding(
    config: dict[str, Any], root: Path, key: str, wrong: str
) -> None:
    (line,) = lines_for(changed(config, f"evaluate.native.{key}", f"{{question}} {{options}} {wrong}"), root)
    assert line.startswith(f"evaluate.native.{key}: cannot be filled (")
    assert "expected no fields but {question}, {options}, {letters}" in line
    assert line.endswith("is written twice: {{ }}")


def test_a_prompt_may_hold_braces_that_are_written_twice(config: dict[str, Any], root: Path) -> None:
    prompt = "{question}\n{options}\nEnd with \\boxed{{X}}, X of {letters}."
    assert lines_for(changed(config, "evaluate.native.choice_prompt", prompt), root) == []


SECRET = "0a1b2c3d4e5f"


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        ("stage1.environment.WANDB_API_KEY", SECRET, "stage1.environment.WANDB_API_KEY"),
        ("stage2.environment.HTTPS_PROXY", f"http://me:{SECRET}@proxy:3128", "stage2.environment.HTTPS_PROXY"),
        ("evaluate.serve.environment.HF_TOKEN", SECRET, "evaluate.serve.environment.HF_TOKEN"),
        ("evaluate.serve.flags.api_key", [SECRET], "evaluate.serve.flags.api_key"),
        ("evaluate.serve.flags.vllm_engine_kwargs", {"hf_token": SECRET}, "evaluate.serve.flags.vllm_engine_kwargs.hf_token"),
        ("stage1.flags.hub_token", SECRET, "stage1.flags.hub_token"),
        ("stage1.flags.hub_tokn", f"hf_{SECRET * 3}", "stage1.flags.hub_tokn"),
        ("stage1.datasets", [f"https://me:{SECRET}@data.example/rows.jsonl"], "stage1.datasets"),
        ("WANDB_API_KEY", SECRET, "WANDB_API_KEY"),
    ],
)  # fmt: skip
def test_a_secret_is_refused_wherever_it_stands_and_no_line_repeats_it(
    config: dict[str, Any], root: Path, path: str, value: Any, key: str
) -> None:
    """Also beside a wrong value, whose finding would show it."""
    (line,) = lines_for(changed(changed(config, path, value), "seed", "zero"), root)
    assert line.startswith(f"{key}: a secret")
    assert SECRET not in line


def test_a_secret_reaches_no_output_and_no_file_of_the_workflow(
    config: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/own.yaml").write_text(
        yaml.safe_dump(changed(config, "stage1.environment.WANDB_API_KEY", SECRET))
    )
    command = [str(root / ".venv/bin/snakemake"), "--snakefile", str(root / "Snakefile"), "--cores", "1"]
    said = subprocess.run(
        [*command, "results/demo/config.json", "--configfile", "config/own.yaml"],
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert said.returncode == 1
    assert "stage1.environment.WANDB_API_KEY: a secret" in said.stdout
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "own.yaml"]
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in said.stdout


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("results", "..", 'results: ".." found; expected names with a single slash'),
        ("results", "results/x\n", 'results: "results/x\\n" found, a path of letters'),
        ("seed", float("nan"), "seed: nan found, a finite number expected"),
        ("seed", 24.0, "seed: 24.0 found, integer expected"),
        ("stage1.num_nodes", 24.0, "stage1.num_nodes: 24.0 found, integer expected"),
        ("stage1.num_nodes", 10**9, "stage1.num_nodes: 1000000000 is greater than the maximum"),
        ("evaluate.serve.num_nodes", 10**9, "evaluate.serve.num_nodes: 1000000000 is greater than the maximum"),
        ("stage1.flags.learning_rate", float("inf"), "stage1.flags.learning_rate: inf found, a finite number expected"),
        ("stage1.flags.max_length", 24.0, "stage1.flags.max_length: 24.0 found, integer expected"),
        (
            "stage1.flags.eval_strategy",
            False,
            "stage1.flags.eval_strategy: false found, Optional[str] expected (YAML reads yes",
        ),
        ("stage1.flags.max_steps", None, "stage1.flags.max_steps: null found, integer expected"),
        (
            "stage1.environment.MAX_PIXELS",
            "1280*28*28",
            'stage1.environment.MAX_PIXELS: "1280*28*28" found, a whole number',
        ),
        (
            "evaluate.serve.environment.MAX_PIXELS",
            3136.0,
            "evaluate.serve.environment.MAX_PIXELS: 3136.0 found, a whole",
        ),
        (
            "stage1.environment.A",
            True,
            "stage1.environment.A: true found, text or integer or number expected (YAML reads yes",
        ),
        ("stage1.environment", {"A\n": 1}, 'stage1.environment: "A\\n" found, a name of capital letters'),
        ("stage1", None, "stage1: null found, a section with keys expected"),
        ("stage1.datasets", [], "stage1.datasets: [] should be non-empty"),
        ("stage1.datasets", "x.jsonl", 'stage1.datasets: "x.jsonl" found, a list expected'),
        (
            "stage1.datasets",
            ["a/{x}.jsonl"],
            'stage1.datasets[0]: "a/{x}.jsonl" found; Snakemake would replace the {x}',
        ),
        ("stage1.datasets", ["a/b#0"], "stage1.datasets[0]: source 'a/b#0': '0' found after the #"),
        (
            "evaluate.benchmarks",
            [{"x": "<results>.tsv"}],
            'evaluate.benchmarks[0].x: "<results>.tsv" found; Snakemake would',
        ),
        ("evaluate.benchmarks", ["digits\n"], 'evaluate.benchmarks[0]: "digits\\n" found, a name of small letters'),
        ("evaluate.serve.flags.system", r"a\nb", "evaluate.serve.flags.system: a backslash before an n found"),
        ("evaluate.serve.flags.system", "a\0b", "evaluate.serve.flags.system: text with a NUL character found"),
        (
            "evaluate.serve.flags.stop_words",
            ["-x"],
            'evaluate.serve.flags.stop_words: ["-x"] found; expected no word that',
        ),
        ("evaluate.serve.flags.stop_words", [], "evaluate.serve.flags.stop_words: [] found, List[str] expected"),
        (
            "evaluate.serve.flags.sglang_tp_size",
            2,
            "evaluate.serve.flags.sglang_tp_size: contradicts backend transformers",
        ),
        ("demo.digits.num_dev", 0, "demo.digits.num_dev: 0 found, 1 or more expected"),
        ("demo.digits.max_shift", -0.1, "demo.digits.max_shift: -0.1 found, 0 or more expected"),
        (
            "demo.vision_donor.min_dev_accuracy",
            2,
            "demo.vision_donor.min_dev_accuracy: 2 found, 0 or more and at most 1",
        ),
        (
            "demo.language_donor.nums_picture_tokens",
            [],
            "demo.language_donor.nums_picture_tokens: [] found, at least one",
        ),
        ("fidelity.text", "docs", "fidelity.text: docs is a directory; expected a file"),
        ("calibration.text", "docs", "calibration.text: docs is a directory; expected a file"),
        ("stage2.datasets", ["#5"], "stage2.datasets[0]: source '#5': nothing found before the #"),
        ("fidelity.text", "a" * 201, "fidelity.text: a path of 201 bytes found"),
        ("demo.digits", {1: 2}, "demo.digits.1: a key that is no text (int) found"),
    ],
)
def test_what_cannot_work_is_one_line_that_begins_with_the_key(
    config: dict[str, Any], root: Path, monkeypatch: pytest.MonkeyPatch, path: str, value: Any, expected: str
) -> None:
    monkeypatch.chdir(root)
    (line,) = lines_for(changed(config, path, value), root)
    assert line.startswith(expected) and "\n" not in line


@pytest.mark.parametrize("name", ["id", "revision"])
@pytest.mark.parametrize(
    "value", ["../x", "a/../b", "a/..", "-n/x", "a b/c", "a/b\n", "$(x)/y", "", "/a/b", "{x}/y", "a//b", "ä/b"]
)
def test_names_of_hubs_hold_nothing_that_leaves_their_directory(
    config: dict[str, Any], root: Path, name: str, value: str
) -> None:
    donor = {"kind": "huggingface", "id": "a/b", "revision": "main", name: value}
    (line,) = lines_for(changed(config, "donors.llm", donor), root)
    assert line.startswith(f"donors.llm.{name}: ")


@pytest.mark.parametrize("revision", ["master", "v1.0.2", "refs/pr/1", "0123456789abcdef", "a_b+c@d-e"])
def test_branches_tags_and_commits_are_taken(config: dict[str, Any], root: Path, revision: str) -> None:
    donor = {"kind": "huggingface", "id": "Qwen/Qwen3-8B", "revision": revision}
    config["evaluate"]["models"] = ["stage1"]
    assert lines_for(changed(changed(config, "donors.llm", donor), "donors.vl", donor), root) == []


def test_keys_that_are_trained_on_cannot_be_ignored(config: dict[str, Any], root: Path) -> None:
    (line,) = lines_for(changed(config, "data.ignored_keys", ["id", "messages"]), root)
    assert line.startswith("data.ignored_keys: messages found, which is what is trained on")


def test_a_speed_flag_that_takes_no_effect_is_refused(config: dict[str, Any], root: Path) -> None:
    (line,) = lines_for(changed(config, "stage2.flags.use_liger_kernel", True), root)
    assert line.startswith("stage2.flags.use_liger_kernel: true takes no effect with graft.architecture: qwen3")
    config["graft"]["architecture"] = "qwen2_5_vl"
    assert lines_for(changed(config, "stage2.flags.use_liger_kernel", True), root) == []


def test_a_server_leaves_room_for_the_question(config: dict[str, Any], root: Path) -> None:
    config["evaluate"]["serve"]["backend"] = "vllm"
    (line,) = lines_for(changed(config, "evaluate.serve.flags.vllm_max_model_len", 16), root)
    assert line.startswith("evaluate.serve.flags.vllm_max_model_len: 16 contradicts evaluate.vlmevalkit.max_tokens: 16")
    assert lines_for(changed(config, "evaluate.serve.flags.vllm_max_model_len", 2048), root) == []


def test_a_contradiction_is_found_beside_a_wrong_value_of_another_section(config: dict[str, Any], root: Path) -> None:
    config["seed"] = -1
    config["stage2"]["flags"]["padding_free"] = True
    keys = [line.partition(": ")[0] for line in lines_for(config, root)]
    assert keys == ["seed", "stage2.flags.padding_free"]


def test_faults_of_the_files_stand_first_and_an_unread_file_misses_no_keys(config: dict[str, Any], root: Path) -> None:
    with pytest.raises(UserError) as error:
        validate({**config, "seed": -1}, root / "config", ["a.yaml:3: seed found a second time"])
    assert str(error.value).splitlines()[1:] == [
        "  a.yaml:3: seed found a second time",
        "  seed: -1 is less than the minimum of 0",
    ]
    with pytest.raises(UserError) as error:
        validate({}, root / "config", ["a.yaml: not found"])
    assert str(error.value) == "configuration:\n  a.yaml: not found"


def test_a_share_of_0_is_one_however_yaml_writes_it(root: Path) -> None:
    config = yaml.safe_load((root / "config/demo.yaml").read_text(encoding="utf-8"))
    config["demo"]["vision_donor"]["min_dev_accuracy"] = 0
    config["demo"]["digits"]["seed"] = 0
    validate(config, root / "config")
