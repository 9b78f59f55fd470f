"""A model in another form is refused by the name of the form, with what to do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.tiny_donor_files import edit_json, write_tiny_donors
from scripts.common.errors import UserError
from scripts.donors.fetch_donor import check_whole
from scripts.donors.other_kinds import require_usual_kind

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5000000000\n"


def without_safetensors(name: str) -> Callable[[Path], object]:
    def change(directory: Path) -> None:
        for path in directory.glob("*.safetensors*"):
            path.unlink()
        (directory / name).write_bytes(b"weights")

    return change


def into(below: str) -> Callable[[Path], object]:
    """The checkpoint one or more directories deeper."""

    def change(directory: Path) -> None:
        names = list(directory.iterdir())
        (directory / below).mkdir(parents=True)
        for path in names:
            path.rename(directory / below / path.name)

    return change


def pointer(pattern: str) -> Callable[[Path], object]:
    return lambda directory: next(iter(sorted(directory.glob(pattern)))).write_text(POINTER)


def adapter(directory: Path) -> None:
    (directory / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "Qwen/Qwen3-8B"}))


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cache": (into("snapshots/0123"), r"a hub's cache found \(.*snapshots/0123\).*give the directory of one revision"),
    "pointer of a shard": (pointer("*.safetensors"), r"a git-lfs pointer .*safetensors.*run `git lfs pull`"),
    "pointer of a tokenizer": (pointer("tokenizer.json"), r"a git-lfs pointer .*\(tokenizer\.json\)"),
    "adapter": (adapter, r"an adapter \(LoRA\) found .*merge it into its base model first"),
    "gguf": (without_safetensors("model-q4.gguf"), r"weights for llama\.cpp found \(model-q4\.gguf\)"),
    "pickles": (without_safetensors("pytorch_model.bin"), r"weights as pickles, .*\(pytorch_model\.bin\).*save_pretrained"),
    "original": (without_safetensors("consolidated.00.pth"), r"weights as pickles, .*consolidated\.00\.pth"),
    "megatron": (without_safetensors("latest_checkpointed_iteration.txt"), r"a checkpoint of Megatron"),
    "quantised": (
        lambda directory: edit_json(directory / "config.json", quantization_config={"quant_method": "awq"}),
        r"quantised weights found \(quantization_config \(awq\) in config\.json\)",
    ),
    "one below": (into("checkpoint-1000"), r"with the model in a directory below found \(.*checkpoint-1000\)"),
}  # fmt: skip


@pytest.fixture
def llm_dir(tmp_path: Path) -> Path:
    return write_tiny_donors(tmp_path)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_another_form_is_named_with_its_remedy(llm_dir: Path, kind: str) -> None:
    change, expected = KINDS[kind]
    check_whole(llm_dir, "llm")
    change(llm_dir)
    with pytest.raises(UserError, match=expected) as caught:
        check_whole(llm_dir, "llm")
    assert "donors.llm" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_and_nothing_are_no_directories(llm_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"a file found; expected the checkpoint directory of donors\.llm; give {llm_dir}"
    ):
        require_usual_kind(llm_dir / "config.json", "donors.llm")
    with pytest.raises(UserError, match=r"not found; expected the checkpoint directory of donors\.llm"):
        require_usual_kind(tmp_path / "none", "donors.llm")


def test_pickles_beside_the_same_weights_as_safetensors_are_passed_over(llm_dir: Path) -> None:
    (llm_dir / "pytorch_model.bin").write_bytes(b"the same again")
    check_whole(llm_dir, "llm")
