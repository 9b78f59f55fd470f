"""The runner of deliberate faults says of each whether the tests notice, and the lists fit the code as it is now."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mutants import run_mutants
from mutants.run_mutants import ListError, Mutant, misfit, read_mutants, selected

CODE = "def twice(number):\n    return 2 * number\n\n\ndef half(number):\n    return number / 2\n"
TESTS = (
    "from code_under_test import half, twice\n\n\n"
    "def test_twice():\n    assert twice(3) == 6\n\n\n"
    "def test_half():\n    half(3)\n\n\n"
    "def test_that_fails():\n    assert twice(3) == 7\n"
)


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Path:
    """A repository with a module and its tests, of which one looks at nothing and one fails."""
    directory = tmp_path / "tree"
    (directory / "tests/unit").mkdir(parents=True)
    (directory / "code_under_test.py").write_text(CODE)
    (directory / "tests/unit/test_code.py").write_text(TESTS)
    (directory / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    (directory / ".gitignore").write_text(".venv\n")
    subprocess.run(["git", "init", "--quiet"], cwd=directory, check=True)
    (directory / ".venv").symlink_to(root / ".venv", target_is_directory=True)
    return directory


def mutant(name: str, find: str, put: str, test: str = "test_twice", may_hang: bool = False) -> Mutant:
    return Mutant("code", name, "code_under_test.py", find, put, (f"tests/unit/test_code.py::{test}",), may_hang)


def test_a_fault_that_a_test_notices_is_noticed_and_the_tree_stays_as_it_was(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # As long as what they replace, within the same second: compiled files must not be taken for each other's.
    faults = [mutant("three times", "2 * number", "3 * number"), mutant("added", "2 * number", "2 + number")]
    assert run_mutants.run(tree, faults, 1) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" (")[0] for line in lines[1:3]] == ["code: three times: noticed", "code: added: noticed"]
    assert lines[3].startswith("2 / 2 noticed, ")
    assert (tree / "code_under_test.py").read_text() == CODE
    assert not list(tree.rglob("__pycache__"))


def test_faults_that_are_not_noticed_or_prove_nothing_fail_the_run(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {
        mutant("a third", "number / 2", "number / 3", "test_half"): "code: a third: NOT NOTICED: its tests pass",
        mutant("gone", "4 * number", "5 * number"): "code: gone: DOES NOT APPLY: its text stands 0 times in code_under",
        mutant("unclear", "number", "numbers"): "code: unclear: DOES NOT APPLY: its text stands 4 times in code_under",
        mutant("broken", "2 * number", "2 *"): "code: broken: NOT NOTICED: its tests could not be run",
        mutant("red", "2 * number", "3 * number", "test_that_fails"): "test_that_fails: FAILS WITHOUT A MUTANT",
        mutant("no test", "2 * number", "3 * number", "test_nothing"): "test_nothing: FAILS WITHOUT A MUTANT",
    }
    assert run_mutants.run(tree, [*said, mutant("three times", "2 * number", "3 * number")], 2) == 1
    printed = capsys.readouterr().out
    for words in said.values():
        assert words in printed
    assert "code: three times: noticed" in printed
    assert "\n1 / 7 noticed, " in printed


def test_a_fault_that_hangs_is_noticed_only_where_that_is_meant(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_mutants, "TIME_LIMIT_S", 3.0)
    hanging = "\n    while True: pass"
    meant, not_meant = (mutant(str(meant), "return 2 * number", hanging, may_hang=meant) for meant in (True, False))
    assert run_mutants.run(tree, [meant], 1) == 0
    assert run_mutants.run(tree, [meant, not_meant], 2) == 1
    printed = capsys.readouterr().out
    assert printed.count("code: True: noticed by time limit") == 2
    assert "code: False: NOT NOTICED: still running after 3 s" in printed
    assert "\n1 / 2 noticed, " in printed


ENTRY = {"name": "a", "file": "b.py", "find": "c", "put": "d", "tests": ["tests/unit/test_b.py"]}


@pytest.mark.parametrize(
    "wrong",
    [{"put": "c"}, {"find": ""}, {"tests": []}, {"test": "misspelt"}, {"name": 7}],
    ids=str,
)  # fmt: skip
def test_an_entry_that_could_prove_nothing_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    (tmp_path / "x.yaml").write_text(run_mutants.yaml.safe_dump([ENTRY | wrong]))
    with pytest.raises(ListError):
        read_mutants(tmp_path)


def test_two_mutants_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(run_mutants.yaml.safe_dump([ENTRY, ENTRY]))
    with pytest.raises(ListError, match="x: a: there twice"):
        read_mutants(tmp_path)


def test_mutants_are_chosen_by_subject_or_by_a_part_of_their_name() -> None:
    faults = read_mutants(run_mutants.LISTS_DIR)
    assert {fault.subject for fault in selected(faults, ["train"])} == {"train"}
    assert [fault.name for fault in selected(faults, ["beyond its first 64 MiB"])] == [
        "a copy loses what lies beyond its first 64 MiB"
    ]
    assert selected(faults, []) == faults


def test_every_mutant_still_applies_and_names_tests_that_are_there(root: Path) -> None:
    faults = read_mutants(run_mutants.LISTS_DIR)
    assert len(faults) >= 120
    for fault in faults:
        assert misfit(fault, root) is None, fault.title
        for test in fault.tests:
            file, _, name = re.sub(r"\[.*", "", test).partition("::")
            assert f"def {name}(" in (root / file).read_text(encoding="utf-8"), test
