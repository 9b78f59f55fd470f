"""The study's questions and texts: what is trained on and what is asked do not overlap where they must not."""

import csv
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts.common.errors import UserError
from study.make_sums import SumsSettings, make_sums
from study.split_english import split, with_calculations
from study.sums import ALL_CALCULATIONS, Calculation

SETTINGS = SumsSettings(num_train=400, num_test=100, num_untrained_calculations=60, seed=1)
Rows = list[dict[str, Any]]


def digits_dir(directory: Path) -> Path:
    """pictures.tsv as make_digits.py writes it, with two pictures of each digit in both splits."""
    directory.mkdir()
    with (directory / "pictures.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(("path", "split", "scan", "copy", "digit"))
        for split_name in ("train", "test"):
            for digit in range(10):
                writer.writerows((f"images/{split_name}-{digit}-{n}.png", split_name, n, 0, digit) for n in range(2))
    return directory


@pytest.fixture
def rows(tmp_path: Path) -> tuple[Rows, Rows]:
    (tmp_path / "sums").mkdir()
    make_sums(digits_dir(tmp_path / "digits"), SETTINGS, tmp_path / "sums")
    train, test = (
        [json.loads(line) for line in (tmp_path / f"sums/{name}.jsonl").read_text().splitlines()]
        for name in ("train", "test")
    )
    return train, test


def calculation_of(row: dict[str, Any]) -> Calculation:
    """Read from the picture's names and the question's words."""
    first, second = (int(Path(path).stem.split("-")[1]) for path in row["images"])
    operation = row["messages"][0]["content"].removesuffix("?").split()[-1]
    return Calculation(operation, first, second)


def test_there_are_three_operations_on_all_pairs_of_digits() -> None:
    assert len(set(ALL_CALCULATIONS)) == 300
    answers = [Calculation(operation, 3, 7).answer for operation in ("sum", "difference", "product")]
    assert answers == ["10", "4", "21"]


def test_each_row_asks_about_two_pictures_and_has_the_right_answer(rows: tuple[Rows, Rows]) -> None:
    train, test = rows
    assert (len(train), len(test)) == (SETTINGS.num_train, SETTINGS.num_test)
    for row in train + test:
        assert row["messages"][0]["content"].startswith("<image><image>What is the ")
        assert row["messages"][1]["content"] == calculation_of(row).answer


def test_calculations_that_are_kept_back_never_come_in_training(rows: tuple[Rows, Rows]) -> None:
    train, test = rows
    trained = {calculation_of(row) for row in train}
    untrained = {calculation_of(row) for row in test if not row["is_trained"]}
    assert len(untrained) > 20 and not trained & untrained
    assert sum(row["is_trained"] for row in test) == len(test) / 2


def test_training_and_test_show_different_pictures(rows: tuple[Rows, Rows]) -> None:
    train, test = rows
    for split_name, members in (("train", train), ("test", test)):
        assert {Path(path).name.split("-")[0] for row in members for path in row["images"]} == {split_name}


def test_as_many_calculations_kept_back_as_there_are_is_refused(tmp_path: Path) -> None:
    settings = replace(SETTINGS, num_untrained_calculations=300)
    with pytest.raises(UserError, match=r"^sums\.num_untrained_calculations: 300 found; expected 1 to 299"):
        make_sums(digits_dir(tmp_path / "digits"), settings, tmp_path)


def test_english_is_split_at_a_paragraph_and_nothing_is_lost() -> None:
    text = "one\n\ntwo\n\nthree\n\nfour\n"
    learned, measured = split(text, 0.5)
    assert (learned, measured) == ("one\n\ntwo\n\nthree\n", "four\n")


@pytest.mark.parametrize("learned_share", [0.0, 0.99])
def test_a_share_that_leaves_nothing_on_one_side_is_refused(learned_share: float) -> None:
    with pytest.raises(UserError, match=r"^learned_share: "):
        split("one\n\ntwo\n", learned_share)


def test_the_calibration_text_has_all_english_and_every_calculation_in_words() -> None:
    text = with_calculations("\n\n".join(f"paragraph {number}" for number in range(8)))
    paragraphs = text.split("\n\n")
    assert [p for p in paragraphs if p.startswith("paragraph")] == [f"paragraph {number}" for number in range(8)]
    conversations = {f"{c.text_before_answer}{c.answer}<|im_end|>" for c in ALL_CALCULATIONS}
    assert set(paragraphs) >= conversations and len(paragraphs) == 8 + len(conversations)
    assert paragraphs[2] in conversations


def test_the_texts_are_written_by_hand_as_the_program_says(root: Path, tmp_path: Path) -> None:
    command = [root / ".venv/bin/python", "-m", "study.split_english", "--text", "texts/calibration.txt"]
    command += ["--learned-share", "0.85", "--output-dir", str(tmp_path / "texts")]
    subprocess.run(command, cwd=root, check=True)
    learned, measured = ((tmp_path / f"texts/{name}.txt").read_text() for name in ("learned", "measured"))
    assert learned.rstrip("\n") + "\n\n" + measured == (root / "texts/calibration.txt").read_text()
