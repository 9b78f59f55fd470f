"""Files of the user's that are not there are named by their keys, all at once; the demo's own may come later."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.common.errors import UserError
from scripts.workflow.missing_files import require_users_files


@pytest.fixture
def demo(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(root)
    return dict(yaml.safe_load((root / "config/demo.yaml").read_text()))


def test_what_the_demo_makes_and_what_comes_with_the_repository_is_not_missed(demo: dict[str, Any]) -> None:
    require_users_files(demo)


def test_every_missing_file_is_named_by_its_key(demo: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "there.jsonl").touch()
    demo["stage1"]["datasets"] = [f"{tmp_path}/there.jsonl#5", f"{tmp_path}/rows.jsonl#5", "a/hub-id"]
    demo["stage2"]["datasets"] = [f"{tmp_path}/more.csv"]
    demo["evaluate"]["benchmarks"] = [{"mine": f"{tmp_path}/mine.tsv"}, "mmmu"]
    demo["fidelity"]["text"] = f"{tmp_path}/text.txt"
    with pytest.raises(UserError) as caught:
        require_users_files(demo)
    assert str(caught.value).splitlines() == [
        "configuration:",
        f"  stage1.datasets[1]: {tmp_path}/rows.jsonl not found; expected training rows; check the path",
        f"  stage2.datasets[0]: {tmp_path}/more.csv not found; expected training rows; check the path",
        f"  evaluate.benchmarks.mine: {tmp_path}/mine.tsv not found; expected questions; check the path",
        f"  fidelity.text: {tmp_path}/text.txt not found; expected a text; check the path",
    ]


def test_without_the_demo_nothing_makes_its_files(demo: dict[str, Any]) -> None:
    demo["stage1"]["datasets"] = ["resources/data/digits/no-such.jsonl"]
    require_users_files(demo)
    del demo["demo"]
    with pytest.raises(UserError, match=r"stage1\.datasets\[0\]: resources/data/digits/no-such\.jsonl not found"):
        require_users_files(demo)
