"""Snakemake, its rules and a real shell hand every text of a configuration to the programs as it is, and run none of it."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from helpers.nasty_strings import text_keys, with_text
from helpers.recording_python import RECORDS_VARIABLE
from helpers.training_rows import row_of, write_rows
from helpers.workflow_run import WorkflowRun, copy_tree
from scripts.common.files import sha256_of_file
from scripts.workflow.config_files import key_path

# Numbered, so that each text is known again. In a path without what Snakemake reads as a pattern.
IN_PATHS = 'it\'s $(touch ran) `touch ran` "{number}" ; touch ran | ä < > & #'
IN_TEXTS = (
    'it\'s $(touch ran) `touch ran` "{number}"\n; touch ran {{model}} {{stage}} {{rule}} {{{{x}}}} <results> ä -n'
)


@pytest.fixture(scope="module")
def checkout(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree, with stand-ins for all interpreters."""
    directory = tmp_path_factory.mktemp("texts") / "vlgraft"
    copy_tree(root, directory)
    for environment in (".venv", ".venvs/train", ".venvs/evaluate"):
        python = directory / environment / "bin/python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!{root}/.venv/bin/python\n{(root / 'tests/helpers/recording_python.py').read_text()}")
        python.chmod(0o755)
        lock_path = directory / "envs" / f"{Path(environment).name}.lock"
        if lock_path.exists():
            (directory / f"{environment}.ok").write_text(f"{sha256_of_file(lock_path)}  envs/{lock_path.name}\n")
    return directory


def is_set_here(key: tuple[str | int, ...]) -> bool:
    """Texts of flags that are seen, and all others that are not limited to names."""
    return "flags" not in key or key[-1] in ("system", "served_model_name", "run_name")


def nasty_configuration(root: Path, directory: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The demo's configuration with other texts in all places, whose files are made; and the texts by their keys."""
    config = yaml.safe_load((root / "config/demo.yaml").read_text())
    kinds = text_keys(root)
    texts = {}
    for number, key in enumerate(key for key, kind in kinds.items() if kind != "name" and is_set_here(key)):
        text = (IN_PATHS if kinds[key] == "path" else IN_TEXTS).format(number=number)
        if kinds[key] == "path":
            text = f"files/{text}"
        if key[0] != "donors":
            config = with_text(config, key, text)
        texts[key_path(key)] = text
    for role in ("vl", "llm"):
        path = texts[f"donors.{role}.path"]
        config["donors"][role] = {"kind": "local", "path": path}
        (directory / path).mkdir(parents=True)
        (directory / path / "config.json").touch()
    config["graft"] |= {"architecture": "qwen2_5_vl", "calibration": "affine"}
    list_path = directory / f"{texts['evaluate.benchmarks[0].name']}.jsonl"
    config["evaluate"]["benchmarks"] = [{"own": str(list_path.relative_to(directory))}]
    config["evaluate"]["models"] = ["parent", "stage2-blind"]
    for path in (
        config["stage1"]["datasets"][0],
        config["stage2"]["datasets"][0],
        texts["calibration.text"],
        texts["fidelity.text"],
    ):
        (directory / path).touch()
    list_path.write_text(json.dumps({"images": ["it's $(touch ran).png"]}) + "\n")
    (list_path.parent / "it's $(touch ran).png").touch()
    return config, texts


def test_every_text_arrives_in_a_run_of_all_rules_and_none_is_run(root: Path, checkout: Path) -> None:
    config, texts = nasty_configuration(root, checkout)
    (checkout / "my configuration.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    records_path = checkout.parent / "records.jsonl"
    environment = {**os.environ, RECORDS_VARIABLE: str(records_path)}
    command = [root / ".venv/bin/snakemake", "--cores", "2", "--configfile", "my configuration.yaml"]
    finished = subprocess.run(command, cwd=checkout, env=environment, text=True, capture_output=True)
    assert finished.returncode == 0, (finished.stdout + finished.stderr)[-6000:]

    records = [json.loads(line) for line in records_path.read_text().splitlines()]
    programs = {words[1] for words in records}
    assert programs == {
        "data.check_dataset", "data.prepare_dataset", "donors.check_donor", "donors.fetch_donor",
        "evaluate.evaluate", "evaluate.make_table",
        "graft.calibrate", "graft.check_fidelity", "graft.derive_config", "graft.graft", "graft.write_model_files",
        "questions.check_table",
        "questions.tabulate_benchmark",
        "report.make_disagreements", "report.make_report", "train.train", "upload.check_checkpoint", "upload.make_model_card",
        "workflow.save_config",
    }  # fmt: skip
    given = json.dumps([[decoded(word) for word in words] for words in records])
    lost = [key for key, text in texts.items() if json.dumps(text)[1:-1] not in given]
    assert lost == []
    saved = next(words for words in records if words[1] == "workflow.save_config")
    assert json.loads(saved[saved.index("--configuration") + 1]) == config
    assert [path for path in checkout.rglob("*") if path.name == "ran"] == []

    again = subprocess.run([*command, "-n"], cwd=checkout, env=environment, text=True, capture_output=True)
    assert "Nothing to be done" in again.stdout + again.stderr


def decoded(word: str) -> Any:
    """A word of a command as the program reads it: JSON as its value."""
    try:
        return json.loads(word)
    except ValueError:
        return word


def test_the_programs_themselves_work_with_files_of_any_name(
    make_checkout: Callable[[str], WorkflowRun], tiny_vl_dir: Path, tiny_llm_dir: Path
) -> None:
    """Donors, rows, a picture, a list of questions: real programs, up to the graft and its ledger."""
    run = make_checkout("names")
    names = 'it\'s my "{}" $(touch ran) ; ä'
    files = run.directory / names.format("files")
    donors = {}
    for role, source in (("vl", tiny_vl_dir), ("llm", tiny_llm_dir)):
        donors[role] = {"kind": "local", "path": str(files / names.format(role))}
        shutil.copytree(source, donors[role]["path"])
    picture = names.format("picture") + ".png"
    Image.new("RGB", (56, 56), "white").save(files / picture)
    rows, questions = files / f"{names.format('rows')}#1.jsonl", files / f"{names.format('questions')}.jsonl"
    write_rows(rows, [row_of("a", [picture])])
    question = {"question": "Which?", "options": ["1", "2"], "answer": "A", "images": [picture]}
    questions.write_text(json.dumps(question) + "\n")
    overlay = {
        "donors": donors,
        "stage1": {"datasets": [str(rows.relative_to(run.directory))]},
        "evaluate": {"benchmarks": [{"own": str(questions.relative_to(run.directory))}]},
    }
    (run.directory / "own.yaml").write_text(yaml.safe_dump(overlay))
    targets = [
        f"results/demo/{name}"
        for name in ("graft/ledger.tsv", "questions/own.tsv", "data/stage1.check.json", "config.json")
    ]
    output = run.run(*targets, "--configfile", "config/demo.yaml", "own.yaml")
    assert "Traceback" not in output
    assert [path for path in run.directory.rglob("*") if path.name == "ran"] == []
    for role in donors:
        (manifest_path,) = (run.directory / "resources/donors").glob(f"local-{role}-*.json")
        assert json.loads(manifest_path.read_text())["dir"] == donors[role]["path"]
    saved = json.loads((run.results / "config.json").read_text())
    assert saved["donors"] == donors and saved["stage1"]["datasets"] == overlay["stage1"]["datasets"]
