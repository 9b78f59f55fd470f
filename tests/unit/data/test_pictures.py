"""A picture is read in full, in one process or several, or its problem is named."""

from pathlib import Path

import pytest
from PIL import Image

from scripts.data.pictures import NUM_PICTURES_PER_TASK, Picture, read_picture, read_pictures


def test_a_sound_picture_has_its_size(tmp_path: Path) -> None:
    path = str(tmp_path / "0.png")
    Image.new("RGB", (60, 30)).save(path)
    assert read_picture(path) == Picture(path, 60, 30)


@pytest.mark.parametrize(
    ("size", "content", "problem"),
    [
        (None, None, "picture not found"),
        (None, b"<html>404 Not Found</html>", "picture unreadable"),
        ((2010, 10), None, "picture unreadable"),
    ],
)
def test_a_picture_that_training_cannot_use_has_a_problem(
    tmp_path: Path, size: tuple[int, int] | None, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "0.png"
    if size:
        Image.new("L", size).save(path)
    if content:
        path.write_bytes(content)
    found = read_picture(str(path))
    assert found.problem == problem
    assert str(path) in found.detail


def test_several_processes_read_the_pictures_in_the_same_order(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.png") for number in range(2 * NUM_PICTURES_PER_TASK)]
    for number, path in enumerate(paths):
        Image.new("L", (8 + number % 5, 9)).save(path)
    assert list(read_pictures(paths, num_workers=2)) == list(read_pictures(paths, num_workers=1))
