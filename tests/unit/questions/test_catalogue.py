"""What `evaluate.benchmarks` may hold, and what each entry means."""

from pathlib import Path
from typing import Any

import pytest

from scripts.common.errors import UserError
from scripts.questions.catalogue import (
    ListedBenchmark,
    benchmark_findings,
    listed_benchmarks,
    pictures_named_in,
    read_catalogue,
)


def found(backend: str, *benchmarks: Any) -> list[str]:
    return list(benchmark_findings({"evaluate": {"backend": backend, "benchmarks": list(benchmarks)}}))


def test_a_benchmark_is_a_known_name_or_a_file_of_ones_own() -> None:
    entries = ["mmmu", {"mine": "my/questions.jsonl"}, {"theirs": "table.tsv"}]
    for backend, dataset in (("vlmevalkit", "MMMU_DEV_VAL"), ("native", "mmmu")):
        assert found(backend, *entries) == []
        assert listed_benchmarks({"backend": backend, "benchmarks": entries}) == {
            "mmmu": ListedBenchmark("mmmu", dataset, None),
            "mine": ListedBenchmark("mine", "mine", Path("my/questions.jsonl")),
            "theirs": ListedBenchmark("theirs", "theirs", Path("table.tsv")),
        }


def test_an_unknown_name_is_refused_with_all_that_are_known() -> None:
    (line,) = found("vlmevalkit", "mmmu", "mmmuu")
    assert line.startswith("evaluate.benchmarks[1]: mmmuu is unknown")
    assert ", ".join(read_catalogue()) in line


def test_a_name_that_stands_twice_is_refused() -> None:
    (line,) = found("native", {"mine": "a.tsv"}, "mmmu", {"mine": "b.tsv"})
    assert line.startswith("evaluate.benchmarks[2]: mine is there twice")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("mathvista", "a judge model reads the answers"), ("mmbench", "in several turns of its options")],
)
def test_what_vlmevalkit_cannot_score_is_refused_with_the_reason_and_the_way_out(name: str, reason: str) -> None:
    (line,) = found("vlmevalkit", name)
    assert line.startswith(f"evaluate.benchmarks[0]: {name} contradicts evaluate.backend: vlmevalkit: ")
    assert reason in line and "write backend: native" in line
    assert found("native", name) == []


@pytest.mark.parametrize("backend", ["vlmevalkit", "native"])
def test_a_table_of_ones_own_needs_another_name_than_a_known_one(backend: str) -> None:
    (line,) = found(backend, {"mmmu": "mine.tsv"})
    assert line.startswith("evaluate.benchmarks[0]: mmmu is a known benchmark")
    assert "another name" in line


def test_a_file_that_is_no_table_is_refused() -> None:
    (line,) = found("vlmevalkit", {"mine": "mine.csv"})
    assert line == "evaluate.benchmarks[0]: mine.csv found; expected a table, .tsv or .jsonl"


def test_a_directory_is_the_snapshot_of_a_known_benchmark_of_the_native_backend_alone() -> None:
    entry = {"mmmu": "datasets/MMMU"}
    assert found("native", entry) == []
    (listed,) = listed_benchmarks({"backend": "native", "benchmarks": [entry]}).values()
    assert listed == ListedBenchmark("mmmu", "mmmu", Path("datasets/MMMU"))
    (line,) = found("vlmevalkit", entry)
    assert "whose file is resources/benchmarks/MMMU_DEV_VAL.tsv; put it there" in line


def test_each_known_name_says_what_each_backend_calls_it_or_why_it_has_none() -> None:
    for name, calls in read_catalogue().items():
        assert calls.keys() in ({"native", "vlmevalkit"}, {"native", "no_vlmevalkit"}), name
        assert all(calls.values()), name


def test_the_pictures_of_a_list_lie_beside_it_and_broken_lines_name_none(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"images": ["a.png", "b/c.png"]}\n{"images"\n[]\n{"question": "?"}\n{"images": ["d.png"]}\n')
    assert [str(each.relative_to(tmp_path)) for each in pictures_named_in(path)] == ["a.png", "b/c.png", "d.png"]
    assert list(pictures_named_in(tmp_path / "absent.jsonl")) == []


@pytest.mark.parametrize(
    ("backend", "entry"),
    [("vlmevalkit", "mathvista"), ("openai", "mmmu"), ("native", {}), ("native", {"a": "a.tsv", "b": "b.tsv"})],
)
def test_an_entry_that_its_backend_does_not_have_is_no_key_error(backend: str, entry: Any) -> None:
    with pytest.raises(UserError, match=r"^evaluate\.benchmarks: "):
        listed_benchmarks({"backend": backend, "benchmarks": [entry]})


@pytest.mark.parametrize("name", ["mmbench_mine", "my-Circular", "openended_q"])
def test_a_name_by_which_vlmevalkit_would_score_otherwise_is_refused_for_it_alone(name: str) -> None:
    (line,) = found("vlmevalkit", {name: "mine.tsv"})
    assert line.startswith(f"evaluate.benchmarks[0]: {name} holds ")
    assert found("native", {name: "mine.tsv"}) == []
