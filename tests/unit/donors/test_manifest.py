"""A donor's manifest is read as it was written; one that lacks a key, or has one too many, is refused with its name."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.common.errors import UserError
from scripts.donors.manifest import DonorManifest, FileRecord, read_manifest, write_manifest
from scripts.donors.settings import DonorSource

FILES = [FileRecord("config.json", 2, 5, "ab"), FileRecord("model.safetensors", 3, 6, "cd", {"weight": "ef"})]
HUB = DonorSource("modelscope", id="Qwen/Qwen3-8B", revision="master")


def manifest_of(source: DonorSource) -> DonorManifest:
    return DonorManifest("llm", source, "resources/donors/demo-llm-seed0", FILES)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_manifest(path, manifest_of(HUB))
    assert read_manifest(path) == manifest_of(HUB)
    found = json.loads(path.read_text())
    assert len(found.pop("content_sha256")) == 64
    assert found == {
        "role": "llm",
        "source": {"id": "Qwen/Qwen3-8B", "kind": "modelscope", "revision": "master"},
        "dir": "resources/donors/demo-llm-seed0",
        "files": [
            {"name": "config.json", "num_bytes": 2, "modified_ns": 5, "sha256": "ab"},
            {
                "name": "model.safetensors",
                "num_bytes": 3,
                "modified_ns": 6,
                "sha256": "cd",
                "tensors": {"weight": "ef"},
            },
        ],
    }


def test_a_manifest_that_was_edited_by_hand_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_manifest(path, manifest_of(HUB))
    path.write_text(path.read_text().replace('"revision": "master"', '"revision": "v2"'))
    with pytest.raises(UserError, match=f"^{path}: edited by hand"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (HUB, "Qwen/Qwen3-8B"),
        (DonorSource("local", path="/models/mine"), "mine"),
        (DonorSource("demo"), "demo-llm-seed0"),
    ],
)
def test_a_donor_is_named_after_its_source(source: DonorSource, name: str) -> None:
    assert (manifest_of(source).name, manifest_of(source).num_bytes) == (name, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"role": "parent"}, 'role: "parent" found; expected vl or llm; make this file again'),
        ({"source": {}}, "source.kind: missing; expected modelscope or huggingface or local or demo"),
        ({"files": [{"name": "config.json"}]}, r"files\[0\].num_bytes: missing; expected int"),
        ({"licence": "mit"}, "licence: unknown key; expected role, source, dir, files"),
    ],
)
def test_another_shape_is_refused_with_the_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "manifest.json"
    write_manifest(path, manifest_of(HUB))
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=f"{path}: {message}"):
        read_manifest(path)
