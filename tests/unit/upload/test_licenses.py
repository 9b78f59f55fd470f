"""A donor's pages and licenses are read as files, and copied without touching what else lies there."""

import os
from pathlib import Path

from scripts.upload.licenses import copy_license_files, read_license


def test_a_page_that_is_no_file_states_no_license(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "README.md")  # nobody writes to it: whoever opens it waits for ever
    assert read_license(tmp_path) is None


def test_a_link_beside_the_card_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    donor_dir, target_dir = tmp_path / "donor", tmp_path / "checkpoint"
    donor_dir.mkdir()
    target_dir.mkdir()
    (donor_dir / "LICENSE").write_text("the license")
    (tmp_path / "mine.txt").write_text("mine")
    (target_dir / "LICENSE.vl").symlink_to(tmp_path / "mine.txt")
    copy_license_files(donor_dir, "vl", target_dir)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert (target_dir / "LICENSE.vl").read_text() == "the license" and not (target_dir / "LICENSE.vl").is_symlink()
