"""Rules and programs started by hand get the same arguments, and each program knows the options that it is given."""

import ast
import contextlib
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.nasty_strings import IN_NAMES, IN_TEXTS, Key, text_in, text_keys, with_text
from scripts.common.errors import UserError
from scripts.workflow import steps
from scripts.workflow.config_files import key_path
from scripts.workflow.configuration import findings
from scripts.workflow.layout import Layout

# Which job of a program the tests ask for.
CHOSEN = {
    "role": "vl", "stage": "stage2", "benchmark": "digits", "model": "stage2-shuffled", "share": "0", "dataset": "MMMU_DEV_VAL",
}  # fmt: skip
PROGRAMS = sorted(
    f"{path.parent.name}.{path.stem}"
    for path in (Path(__file__).resolve().parents[3] / "scripts").glob("*/*.py")
    if steps.step_function(f"{path.parent.name}.{path.stem}")
)


@pytest.fixture
def config(root: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((root / "config/demo.yaml").read_text())
    config["evaluate"]["serve"]["num_nodes"] = 2
    return config


@pytest.fixture
def layout(config: dict[str, Any]) -> Layout:
    return Layout(config)


def chosen(program: str) -> dict[str, str]:
    return {name: CHOSEN[name] for name in steps.selectors(program)}


def options_of(root: Path, program: str) -> set[str]:
    """What a program's source adds to its parser, with the modules of its folder, where a part may lie."""
    sources = sorted((root / "scripts" / program.partition(".")[0]).glob("*.py"))
    calls = [node for path in sources for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    named = [call.args[0] for call in calls if getattr(call.func, "attr", "") == "add_argument" and call.args]
    return {str(word.value) for word in named if isinstance(word, ast.Constant)}


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_program_knows_the_options_that_its_rule_gives_it(root: Path, layout: Layout, program: str) -> None:
    words = steps.command(layout, program, **chosen(program))
    given = {word for word in words if word.startswith("--")}
    assert given and given <= options_of(root, program)


def test_every_rule_takes_its_command_from_here(root: Path) -> None:
    named = {
        word.split('"')[1]
        for path in (root / "rules").glob("*.smk")
        for word in path.read_text().split("run(")[1:]
        if word.startswith('"')
    }
    assert named and named <= set(PROGRAMS)


def test_a_program_is_given_its_own_section_and_no_other(layout: Layout, config: dict[str, Any]) -> None:
    before = steps.shell_command(layout, "graft.graft")
    config["stage1"]["flags"]["learning_rate"] = 0.5
    assert steps.shell_command(layout, "graft.graft") == before
    config["graft"]["aligner"] = "keep"
    assert steps.shell_command(layout, "graft.graft") != before


def test_a_refitted_graft_is_judged_by_the_gate_and_repeats_no_fit_for_another_threshold(
    layout: Layout, config: dict[str, Any]
) -> None:
    config["graft"] |= {"architecture": "qwen2_5_vl", "calibration": "affine"}
    fit = steps.shell_command(layout, "graft.calibrate")
    words = steps.command(layout, "graft.check_fidelity")
    assert words[words.index("--calibration") + 1] == layout.calibration
    assert words[words.index("--max-kl-nats") + 1] == str(config["calibration"]["max_kl_nats"])
    config["calibration"]["max_kl_nats"] = 1.0
    assert steps.shell_command(layout, "graft.calibrate") == fit
    assert steps.command(layout, "graft.check_fidelity") != words


def test_an_unknown_job_is_refused_with_those_there_are(layout: Layout) -> None:
    with pytest.raises(UserError, match="--stage: stage3 found; expected one of stage1, stage2"):
        steps.command(layout, "train.train", stage="stage3")
    with pytest.raises(UserError, match="--benchmark: mmmu found; expected one of digits"):
        steps.command(layout, "evaluate.make_table", benchmark="mmmu")


def test_a_command_survives_the_shell(layout: Layout, config: dict[str, Any]) -> None:
    config["evaluate"]["backend"] = "native"
    words = steps.command(layout, "evaluate.evaluate", **chosen("evaluate.evaluate"))
    assert shlex.split(steps.shell_command(layout, "evaluate.evaluate", **chosen("evaluate.evaluate"))) == words
    assert any("{question}" in word for word in words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["graft.grafts"], "graft.grafts: no such program"),
        (["graft.graft", "--config", "nothing.yaml"], "nothing.yaml: not found; expected a configuration"),
        (["train.train", "--config", "config/demo.yaml"], "required: --stage"),
        (["train.train", "--config", "config/demo.yaml", "--stage", "three"], "expected one of stage1, stage2"),
        (["evaluate.print_table", "--config", "config/demo.yaml"], "evaluate.print_table: has no usual arguments"),
    ],
)
def test_by_hand_a_mistake_is_one_line(root: Path, words: list[str], message: str) -> None:
    finished = subprocess.run([sys.executable, "scripts", *words], cwd=root, capture_output=True, text=True)
    assert finished.returncode != 0
    assert message in finished.stderr and "Traceback" not in finished.stderr


def test_options_behind_the_configuration_win(root: Path, tmp_path: Path) -> None:
    output_path = tmp_path / "config.json"
    command = [sys.executable, "scripts", "workflow.save_config", "--config", "config/demo.yaml"]
    subprocess.run([*command, "--output", output_path], cwd=root, check=True, capture_output=True)
    assert output_path.exists()


def test_all_programs_are_listed_with_what_they_do(root: Path) -> None:
    finished = subprocess.run([sys.executable, root / "scripts"], cwd="/", capture_output=True, text=True, check=True)
    assert "  graft.graft " in finished.stdout and "  train.train " in finished.stdout


def test_a_text_that_looks_like_an_option_stays_with_its_own() -> None:
    step = steps.Step("train", {"dir": "-n", "other": "--dir", "number": -1, "words": ["a", "b"], "none": None})
    assert step.arguments() == ["--dir=-n", "--other=--dir", "--number", "-1", "--words", "a", "b"]


def layouts_with_text(root: Path, key: Key, texts: Iterable[str]) -> Iterator[tuple[str, Layout]]:
    """For each text that the configuration may hold under a key: the text and the run; the others are refused by their key."""
    config = yaml.safe_load((root / "config/demo.yaml").read_text())
    schema = yaml.safe_load((root / "config/schema.yaml").read_text())
    known_flags = json.loads((root / "config/known_flags.json").read_text())
    for text in texts:
        changed = with_text(config, key, text)
        lines = findings(changed, schema, known_flags)
        if lines:
            assert all(line.startswith(key_path(key[:2])) for line in lines), (text, lines)
        else:
            yield text_in(changed, key), Layout(changed)


def words_of_all_programs(layout: Layout) -> dict[str, list[str]]:
    """What each program is given, after a shell has read it."""
    words = {}
    for program in PROGRAMS:
        names = {**CHOSEN, "benchmark": next(iter(layout.benchmarks)), "share": "0", "model": layout.models[-1]}
        chosen_names = {name: names[name] for name in steps.selectors(program)}
        words[program] = shlex.split(steps.shell_command(layout, program, **chosen_names))
        assert words[program] == steps.command(layout, program, **chosen_names)
    return words


def texts_in(word: str) -> set[str]:
    """The texts that a word of a command holds: itself, what stands behind its `--name=`, or those of its JSON."""
    found = {word, word.partition("=")[2]}
    with contextlib.suppress(ValueError):
        waiting = [json.loads(word)]
        while waiting:
            value = waiting.pop()
            found |= {value} if isinstance(value, str) else set()
            waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return found


TEXT_KEYS = text_keys(Path(__file__).resolve().parents[3])


def test_no_key_that_holds_text_is_forgotten() -> None:
    """The keys are found in the schema: those that a reader would name are among them."""
    kinds = {key_path(key): kind for key, kind in TEXT_KEYS.items()}
    assert {name for name, kind in kinds.items() if kind == "path"} == {
        "donors.vl.path", "donors.llm.path", "calibration.text", "fidelity.text", "stage1.datasets[0]", "stage2.datasets[0]",
        "evaluate.benchmarks[0].name",
    }  # fmt: skip
    assert {name for name, kind in kinds.items() if kind == "name"} == {
        "results", "donors.vl.id", "donors.vl.revision", "donors.llm.id", "donors.llm.revision", "evaluate.models[0]",
        "evaluate.benchmarks[0]", "evaluate.native.choice_prompt", "evaluate.native.open_prompt",
    }  # fmt: skip
    texts = {name for name, kind in kinds.items() if kind == "text"}
    assert texts > {
        "stage1.environment.NAME", "stage2.environment.NAME", "evaluate.serve.environment.NAME", "stage1.flags.system",
        "evaluate.serve.flags.system", "evaluate.serve.flags.served_model_name", "evaluate.serve.flags.stop_words",
    }  # fmt: skip
    assert len(texts) > 50


# Of the many flags that nobody sets, all are tested at once.
SEEN_FLAGS = ("system", "served_model_name", "stop_words")
RARE_FLAGS = [key for key in TEXT_KEYS if "flags" in key and key[-1] not in SEEN_FLAGS]


@pytest.mark.parametrize("key", [key for key in TEXT_KEYS if key not in RARE_FLAGS], ids=key_path)
def test_every_text_reaches_the_programs_as_it_is_or_is_refused_by_its_key(
    root: Path, monkeypatch: pytest.MonkeyPatch, key: Key
) -> None:
    monkeypatch.chdir(root)
    accepted = dict(layouts_with_text(root, key, IN_TEXTS))
    for text, layout in accepted.items():
        if key[0] == "calibration":
            layout = Layout({**layout.config, "graft": {**layout.config["graft"], "calibration": "affine"}})
        words = words_of_all_programs(layout)
        assert any(text in texts_in(word) for program in words.values() for word in program), text
    if TEXT_KEYS[key] == "text":
        assert len(accepted) == len(IN_TEXTS)
    if TEXT_KEYS[key] == "path":
        assert len(accepted) >= len(IN_NAMES), "only what Snakemake would change is refused"


@pytest.mark.parametrize("text", ["it's $(x) ä", "{model} {stage}", "-n", "two\nlines"])
def test_the_text_of_every_flag_reaches_its_program_as_it_is(
    root: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(root)
    config = yaml.safe_load((root / "config/demo.yaml").read_text())
    for number, key in enumerate(RARE_FLAGS):
        config = with_text(config, key, f"{text} {number}")
    schema = yaml.safe_load((root / "config/schema.yaml").read_text())
    assert findings(config, schema, json.loads((root / "config/known_flags.json").read_text())) == []
    words = [word for program in words_of_all_programs(Layout(config)).values() for word in program]
    reached = set().union(*map(texts_in, words))
    assert {f"{text} {number}" for number in range(len(RARE_FLAGS))} <= reached
