"""Each prepared row is known by the user's file and line."""

from pathlib import Path

from scripts.data.bad_rows import DroppedRow
from scripts.data.row_origins import RowOrigins, read_row_origins, write_row_origins


def test_origins_are_read_as_they_were_written_and_name_a_rows_place(tmp_path: Path) -> None:
    origins = RowOrigins(
        ["/a.jsonl", "ID"], [0, 0, 1], [1, 4, 9], [DroppedRow("/a.jsonl", 2, "why")], {"turned upright": 1}
    )
    write_row_origins(tmp_path / "origins.json", origins)
    assert read_row_origins(tmp_path / "origins.json") == origins
    assert [origins.place(number) for number in (1, 2, 3)] == [("/a.jsonl", 1), ("/a.jsonl", 4), ("ID", 9)]
