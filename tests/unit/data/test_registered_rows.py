"""Pictures that come inside the rows; the datasets themselves are tested in tests/model/test_registered_datasets.py."""

from pathlib import Path

from scripts.data.registered_rows import write_picture


def test_pictures_of_one_content_become_one_file(tmp_path: Path) -> None:
    content = b"no picture, which is for the check to find"
    paths = {write_picture(content, tmp_path / "pictures") for _ in range(2)}
    (path,) = paths
    assert Path(path).read_bytes() == content
    assert len([p for p in (tmp_path / "pictures").rglob("*") if p.is_file()]) == 1
