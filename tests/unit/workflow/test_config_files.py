"""Files of a configuration are read without silent losses and put together, the later ones over the earlier ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.workflow.config_files import MAX_NUM_VALUES, merged, read_files


def read(tmp_path: Path, *texts: str, entries: tuple[str, ...] = ()) -> tuple[dict[Any, Any], list[str]]:
    """The configuration of files with these texts, and the findings without the directory."""
    paths = [tmp_path / f"{number}.yaml" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    config, findings = read_files(paths, entries)
    return config, [finding.removeprefix(f"{tmp_path}/") for finding in findings]


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("seed: 1\nresults: a\nseed: 2\n", "0.yaml:3: seed found a second time (first in line 1)"),
        ("a: {b: 1, c: 2, b: 3}", "0.yaml:1: a.b found a second time"),
        ("a:\n  - x: 1\n    x: 2\n", "0.yaml:3: a[0].x found a second time (first in line 2)"),
        ('"a b": 1\n"a b": 1\n', '0.yaml:2: "a b" found a second time'),
        ('{"a": {"b": 1, "b": 2}}', "0.yaml: b found a second time in one section"),
        ("a: 010", "0.yaml:1: a: 010 found, which YAML reads as another number"),
        ("a: [1:30]", "0.yaml:1: a[0]: 1:30 found, which YAML reads as another number"),
        ("a: 1_000", "0.yaml:1: a: 1_000 found"),
        ("a: 0x10", "0.yaml:1: a: 0x10 found"),
        ("a: 1_0.5", "0.yaml:1: a: 1_0.5 found"),
        ("a: [", "0.yaml:"),
        ("a: b: c", "0.yaml:1: not YAML ("),
        ("\ta: 1", "0.yaml:1: not YAML ("),
        ("a: 1\n---\na: 2", "0.yaml:2: not YAML (but found another document)"),
        ("a: !!python/object/apply:os.system [ls]", "0.yaml:1: not YAML (could not determine a constructor"),
        ("", "0.yaml: no configuration found; expected keys and values"),
        ("[1, 2]", "0.yaml: no configuration found"),
        ("just words", "0.yaml: no configuration found"),
        ("__use_yte__: true\na: ?1+1", "0.yaml: __use_yte__ found; expected a configuration without templates"),
        ("a: &a [1, *a]", f"0.yaml: more than {MAX_NUM_VALUES} values found"),
        (f"a: {'9' * 5000}", "0.yaml: not YAML (Exceeds the limit"),
    ],
)
def test_what_yaml_takes_in_silence_is_one_finding_with_its_place(tmp_path: Path, text: str, finding: str) -> None:
    _, (found,) = read(tmp_path, text)
    assert found.startswith(finding) and "\n" not in found


def test_aliases_of_aliases_are_refused_before_they_are_written_out(tmp_path: Path) -> None:
    levels = [f"l{number}: &l{number} [{', '.join([f'*l{number - 1}'] * 9)}]" for number in range(1, 40)]
    _, (found,) = read(tmp_path, "\n".join(["l0: &l0 [1]", *levels]))
    assert "expected no aliases of aliases" in found


def test_an_alias_and_a_merge_key_are_no_repetition(tmp_path: Path) -> None:
    config, findings = read(tmp_path, "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n")
    assert not findings and config["b"] == {"x": 1, "y": 3} and config["c"] == {"x": 1, "y": 2}


def test_numbers_as_everybody_reads_them_are_taken(tmp_path: Path) -> None:
    text = "[0, -1, +5, 24, 1.0e-3, 1.5E+3, .5, 5., 0.0, -0.5, 1e-3, '010']"
    config, findings = read(tmp_path, f"a: {text}")
    assert not findings
    assert config["a"] == [0, -1, 5, 24, 0.001, 1500.0, 0.5, 5.0, 0.0, -0.5, "1e-3", "010"]


def test_json_is_read_as_json(tmp_path: Path) -> None:
    """YAML would read its 5e-06 as text: so that `--config results/config.json` works."""
    config, findings = read(tmp_path, json.dumps({"rate": 5e-06, "text": "\ud83d"}))
    assert not findings and config == {"rate": 5e-06, "text": "\ud83d"}


def test_each_file_with_a_fault_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b'a: "\xff"')
    _, findings = read_files([tmp_path / "none.yaml", tmp_path / "latin.yaml", tmp_path])
    assert [finding.partition(": ")[0] for finding in findings] == [
        str(path) for path in (tmp_path / "none.yaml", tmp_path / "latin.yaml", tmp_path)
    ]
    assert "not found" in findings[0] and "not UTF-8 text" in findings[1] and "is a directory" in findings[2]


@pytest.mark.parametrize(
    "text", ["[" * 30_000, '{"a": ' * 30_000, "{a: " * 101 + "1" + "}" * 101, "[" * 101 + "]" * 101]
)
def test_a_file_that_is_nested_too_deep_for_its_reader_is_one_finding(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == (
        {},
        ["0.yaml: sections more than 100 deep found; expected a configuration; correct it"],
    )


@pytest.mark.parametrize("text", ["seed: !!bool maybe", "seed: !!timestamp foo", 'seed: !!int ""', 'seed: !!float ""'])
def test_a_tag_that_does_not_go_with_its_value_is_a_finding(tmp_path: Path, text: str) -> None:
    config, findings = read(tmp_path, text)
    assert not config and findings[-1].startswith("0.yaml: not YAML (")


def test_a_deep_value_of_the_command_line_is_named() -> None:
    assert read_files([], ["a=" + "[" * 30_000])[1][0].startswith("--config a: sections more than 100 deep found")


def test_a_later_file_wins_key_by_key(tmp_path: Path) -> None:
    config, findings = read(tmp_path, "a: {b: 1, c: [1, 2]}\nd: 1", "a: {c: [3]}", entries=("d=2", "e={f: 1}", "g="))
    assert not findings
    assert config == {"a": {"b": 1, "c": [3]}, "d": 2, "e": {"f": 1}, "g": None}


def test_an_entry_of_the_command_line_that_is_given_twice_or_is_no_yaml_is_named() -> None:
    assert read_files([], ["seed=1", "seed=2"])[1] == ["--config seed: found a second time; remove one"]
    assert read_files([], ["a={b: 1, b: 2}"])[1][0].startswith("--config a:1: b found a second time")
    assert read_files([], ["a=[1"])[1][0].startswith("--config a:2: not YAML (")


def test_a_donor_of_another_kind_replaces_the_earlier_one() -> None:
    base = {"donors": {"vl": {"kind": "modelscope", "id": "a/b", "revision": "c"}, "llm": {"kind": "demo"}}}
    swapped = merged(base, {"donors": {"vl": {"kind": "local", "path": "d"}}})
    assert swapped == {"donors": {"vl": {"kind": "local", "path": "d"}, "llm": {"kind": "demo"}}}
    assert merged(base, {"donors": {"vl": {"revision": "d"}}})["donors"]["vl"] == {
        **base["donors"]["vl"],
        "revision": "d",
    }


def test_environments_of_another_kind_keep_their_other_keys() -> None:
    assert merged({"environments": {"kind": "venv", "train": "train"}}, {"environments": {"kind": "apptainer"}}) == {
        "environments": {"kind": "apptainer", "train": "train"}
    }


@pytest.mark.parametrize(("flag", "other"), [("max_steps", "num_train_epochs"), ("num_train_epochs", "max_steps")])
def test_a_length_replaces_the_one_that_is_given_in_the_other_way(flag: str, other: str) -> None:
    base = {"stage1": {"flags": {other: 3, "save_steps": 1}}}
    assert merged(base, {"stage1": {"flags": {flag: 5}}}) == {"stage1": {"flags": {flag: 5, "save_steps": 1}}}
    both = {"stage1": {"flags": {flag: 5, other: 4}}}
    assert merged(base, both) == {"stage1": {"flags": {**both["stage1"]["flags"], "save_steps": 1}}}, (
        "a contradiction stays"
    )
    assert merged(base, {"stage1": {"flags": {"save_steps": 2}}})["stage1"]["flags"][other] == 3
