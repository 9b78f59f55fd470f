"""Problems of rows are reported by kind, with their places and a remedy."""

from pathlib import Path

from scripts.data.findings import MAX_SHOWN_PER_KIND, REMEDIES, Findings, describe_problems


def test_every_kind_of_problem_has_a_remedy(tmp_path: Path) -> None:
    findings = Findings(num_rows=30)
    for kind in REMEDIES:
        findings.problems[kind] = [(number, "why") for number in range(1, 26)]
    text = describe_problems(tmp_path / "rows.jsonl", findings, "line {}".format)
    assert text.count(f"line {MAX_SHOWN_PER_KIND}: why") == text.count("and 5 more") == len(REMEDIES)
    assert f"line {MAX_SHOWN_PER_KIND + 1}" not in text
    assert "25 of 30 rows cannot be trained on" in text


def test_a_bad_row_is_known_by_the_first_kind_of_its_problems() -> None:
    findings = Findings(num_rows=3)
    findings.problems["picture not found"] = [(2, "/a.png")]
    findings.problems["empty assistant turn"] = [(2, ""), (3, "")]
    assert findings.bad_rows() == {2: "empty assistant turn", 3: "empty assistant turn"}
