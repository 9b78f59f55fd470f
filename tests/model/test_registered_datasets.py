"""Datasets registered in ms-swift, by its own code; a stand-in for the hub gives rows of the published shapes.

No hub can be reached where these tests run: that a dataset downloads, and that its real rows look like these, is untested.
"""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from PIL import Image
from swift.dataset import MediaResource
from swift.hub.hub import HFHub, MSHub

from helpers.file_server import served
from scripts.common.errors import UserError
from scripts.data import prepare_dataset, registered_rows
from scripts.data.rows import IMAGE_TAG

Row = dict[str, Any]
Prepare = Callable[..., list[Row]]


def png_bytes(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (40, 30), shade).save(buffer, "PNG")
    return buffer.getvalue()


def llava_row(image: str) -> Row:
    question, answer = {"from": "human", "value": f"{IMAGE_TAG}\nWhat is it?"}, {"from": "gpt", "value": "A chair."}
    return {"id": "1", "image": image, "conversations": [question, answer]}


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """Runs the program on one source whose hub holds `rows`; `pictures` are what was unpacked beside them."""
    media_dir = tmp_path / "media"
    monkeypatch.setattr(MediaResource, "cache_dir", str(media_dir))
    # Every archive counts as fetched once its directory exists.
    archives = {*MediaResource.media_type_urls, "llava_pretrain"}

    def run(source: str, rows: list[Row], pictures: tuple[str, ...] = (), seed: int = 0) -> list[Row]:
        for archive in archives:
            (media_dir / archive).mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            path = media_dir / picture
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png_bytes())
        for hub in (MSHub, HFHub):
            monkeypatch.setattr(hub, "load_dataset", lambda *_, **__: Dataset.from_list(rows))
        output_path = tmp_path / "stage1.jsonl"
        arguments = ["--sources", json.dumps([source]), "--seed", str(seed), "--output", str(output_path)]
        monkeypatch.setattr(sys, "argv", ["prepare_dataset.py", *arguments])
        prepare_dataset.main()
        return [json.loads(line) for line in output_path.read_text().splitlines()]

    return run


def test_llava_pretrain_keeps_messages_and_pictures(prepare: Prepare, tmp_path: Path) -> None:
    """ms-swift 4.6.0 by itself loses every row of it."""
    rows = prepare("AI-ModelScope/LLaVA-Pretrain", [llava_row("00453/1.jpg")] * 3, ("llava_pretrain/00453/1.jpg",))
    assert len(rows) == 3
    assert rows[0]["images"] == [str(tmp_path / "media/llava_pretrain/00453/1.jpg")]
    assert rows[0]["messages"] == [
        {"role": "user", "content": f"{IMAGE_TAG}\nWhat is it?"},
        {"role": "assistant", "content": "A chair."},
    ]


def test_ms_swift_by_itself_still_loses_every_row_of_llava_pretrain(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once this fails the repair can go; until then, losing everything is an error and no empty file."""
    monkeypatch.setattr(registered_rows, "repair_registrations", reload_registrations)
    with pytest.raises(UserError, match="ms-swift lost 3 of 3 rows"):
        prepare("AI-ModelScope/LLaVA-Pretrain", [llava_row("00453/1.jpg")] * 3, ("llava_pretrain/00453/1.jpg",))


def reload_registrations() -> None:
    """Puts ms-swift's own preprocessor back, which another test has replaced for the process."""
    from swift.dataset import DATASET_MAPPING
    from swift.dataset.dataset.mllm import LLaVAPretrainPreprocessor

    for meta in DATASET_MAPPING.values():
        if meta.ms_dataset_id == "AI-ModelScope/LLaVA-Pretrain":
            meta.preprocess_func = LLaVAPretrainPreprocessor()


def test_sharegpt4v_finds_its_pictures_in_each_archive(prepare: Prepare, tmp_path: Path) -> None:
    """ms-swift 4.6.0 by itself loses every row of it."""
    images = ["coco/train2017/1.jpg", "sam/images/sa_1.jpg", "llava/llava_pretrain/images/00453/1.jpg"]
    unpacked = ("coco/train2017/1.jpg", "sam/sa_1.jpg", "llava/00453/1.jpg")
    rows = prepare("AI-ModelScope/ShareGPT4V:ShareGPT4V", [llava_row(image) for image in images], unpacked)
    assert [row["images"] for row in rows] == [[str(tmp_path / "media" / path)] for path in unpacked]


def test_the_llava_mix_keeps_its_rows_of_text_alone(prepare: Prepare, tmp_path: Path) -> None:
    """ms-swift 4.6.0 by itself loses them."""
    paths = ["coco/train2017/1.jpg", "gqa/images/1.jpg", "vg/VG_100K_2/1.jpg", "textvqa/train_images/1.jpg"]
    unpacked = ("coco/train2017/1.jpg", "gqa/images/1.jpg", "VG_100K_2/VG_100K_2/1.jpg", "textvqa/train_images/1.jpg")
    answer = {"role": "gpt", "content": "A."}
    conversation = [{"role": "human", "content": f"{IMAGE_TAG}\nWhat?"}, answer]
    hub_rows = [{"images": [{"path": path}], "conversation": conversation} for path in paths]
    text_only = {"images": [], "conversation": [{"role": "human", "content": "Why?"}, answer]}
    rows = prepare("swift/llava-data:llava_instruct", [*hub_rows, text_only], unpacked)
    assert [row.get("images") for row in rows] == [[str(tmp_path / "media" / path)] for path in unpacked] + [None]
    assert rows[-1]["messages"][0] == {"role": "user", "content": "Why?"}


def test_missing_pictures_of_an_archive_are_an_error_and_no_smaller_dataset(prepare: Prepare, tmp_path: Path) -> None:
    hub_rows = [llava_row("00453/1.jpg")] * 8 + [llava_row("00453/absent.jpg")] * 2
    with pytest.raises(UserError, match="lost 2 of 10 rows"):
        prepare("AI-ModelScope/LLaVA-Pretrain", hub_rows, ("llava_pretrain/00453/1.jpg",))
    assert not (tmp_path / "stage1.jsonl").exists()


def test_pictures_that_arrive_inside_the_rows_become_files_beside_the_output(prepare: Prepare, tmp_path: Path) -> None:
    hub_rows = [{"image": {"bytes": png_bytes(i % 2), "path": None}, "caption": f"caption {i}"} for i in range(6)]
    rows = prepare("modelscope/coco_2014_caption:train#4", hub_rows)
    assert len(rows) == 4
    for row in rows:
        shade = int(row["messages"][1]["content"].split()[1]) % 2
        (path,) = map(Path, row["images"])
        assert path.is_relative_to(tmp_path / "stage1.pictures")
        assert path.suffix == ".png"
        assert path.read_bytes() == png_bytes(shade)
        assert row["messages"][0]["content"].count(IMAGE_TAG) == 1, "the tag that these rows lack was added"


def test_a_row_that_cannot_be_trained_on_is_named_by_its_number_in_the_dataset(prepare: Prepare) -> None:
    hub_rows = [{"image": {"bytes": png_bytes(), "path": None}, "caption": f"caption {i}"} for i in range(4)]
    hub_rows[2]["image"]["bytes"] = b"no picture"
    with pytest.raises(
        UserError, match=r"1 of 4 rows .*\n  modelscope/coco_2014_caption:train, line 3: a picture given"
    ):
        prepare("modelscope/coco_2014_caption:train", hub_rows)


PICTURE = {"bytes": png_bytes(), "path": None}
MIX_MESSAGES = [
    {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image", "text": None}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A."}]},
]


@pytest.mark.parametrize(
    ("source", "hub_row"),
    [
        ("swift/OCR-VQA", {"image": PICTURE, "questions": ["Who wrote it?"], "answers": ["Somebody"]}),
        ("swift/ScienceQA", {"image": PICTURE, "question": "?", "choices": ["a", "b"], "answer": 0, "solution": "s"}),
        ("swift/llava-instruct-mix-vsft", {"images": [PICTURE], "messages": MIX_MESSAGES}),
    ],
)
def test_a_dataset_whose_pictures_ms_swift_loses_is_refused(prepare: Prepare, source: str, hub_row: Row) -> None:
    with pytest.raises(UserError, match="every picture was lost"):
        prepare(source, [hub_row])


@pytest.mark.parametrize(
    ("source", "hub_row"),
    [
        ("swift/A-OKVQA", {"image": PICTURE, "question": "?", "choices": ["a"], "rationales": ["because"]}),
        ("swift/TextCaps", {"image": {"bytes": None, "path": "media/coco/1.jpg"}, "reference_strs": ["a sign"]}),
        ("AI-ModelScope/LLaVA-Instruct-150K", llava_row("coco/1.jpg")),
    ],
)
def test_datasets_that_ms_swift_reads_as_they_are_keep_rows_and_pictures(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, hub_row: Row
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = prepare(source, [hub_row], ("coco/1.jpg",))
    assert rows, "one for each split that ms-swift takes"
    for row in rows:
        assert Path(row["images"][0]).read_bytes() == png_bytes()
        assert row["messages"][0]["content"].count(IMAGE_TAG) == 1


def test_pictures_that_are_addresses_are_fetched(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web/1.png").write_bytes(png_bytes())
    with served(tmp_path / "web") as address:
        hub_rows = [{"url": f"{address}/1.png", "vlm_caption": "This image displays: a chair."}]
        rows = prepare("swift/pixelprose", hub_rows)
    assert rows, "one for each split that ms-swift takes"
    assert {Path(row["images"][0]).read_bytes() for row in rows} == {png_bytes()}


def test_an_unknown_id_is_refused_with_the_nearest_known_one(prepare: Prepare) -> None:
    with pytest.raises(UserError, match=r"not registered.*nearest known are AI-ModelScope/LLaVA-Pretrain"):
        prepare("AI-ModelScope/LLaVA-Pretran", [])


def test_an_id_of_the_other_hub_is_refused_with_the_prefix_to_write(prepare: Prepare) -> None:
    with pytest.raises(UserError, match="write hf::lmms-lab/GQA"):
        prepare("lmms-lab/GQA", [])


def test_a_hub_that_cannot_be_reached_gives_one_message(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("name or service not known\nat line 2 of many")

    monkeypatch.setattr(registered_rows, "repair_registrations", lambda: setattr(MSHub, "load_dataset", unreachable))
    original = MSHub.load_dataset
    try:
        with pytest.raises(UserError, match=r"could not be loaded.*name or service not known at line 2.*internet"):
            prepare("AI-ModelScope/LLaVA-Pretrain", [llava_row("1.jpg")])
    finally:
        MSHub.load_dataset = original
