"""Broken donors and targets: each ends with exit status 1 and one message, leaves nothing, and touches no donor."""

import hashlib
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.processes import LIMIT_S, wait_for
from helpers.small_file_system import remount, small_file_system
from helpers.tiny_donor_files import write_json, write_safetensors, write_tiny_donors
from helpers.tiny_graft import SECTION, graft_settings
from scripts.common.errors import UserError
from scripts.common.files import write_json_atomically
from scripts.donors.safetensors_files import read_checkpoint, read_shard
from scripts.graft import shard_writer
from scripts.graft.derive_config import derive_from_donors
from scripts.graft.shard_layout import OutputTensor, lay_out_shards
from scripts.graft.shard_writer import write_shards

INDEX = "model.safetensors.index.json"
SECOND_SHARD = "model-00002-of-00003.safetensors"


def file_hashes(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


class Workplace:
    """Donors that fit, the configuration derived from them, and the two programs."""

    def __init__(self, root: Path, directory: Path, **donor_changes: Any) -> None:
        self.root = root
        self.vl_dir, self.llm_dir = write_tiny_donors(directory / "donors", **donor_changes)
        self.output_dir = directory / "graft"
        self.config_path = self.output_dir / "config.json"

    def command(self, program: str, **settings: Any) -> list[str]:
        arguments = [sys.executable, "scripts", f"graft.{program}", "--vl-dir", str(self.vl_dir), "--llm-dir"]
        arguments += [str(self.llm_dir), "--settings", json.dumps({**SECTION, **settings})]
        if program == "derive_config":
            return [*arguments, "--output", str(self.config_path)]
        arguments += ["--model-config", str(self.config_path), "--seed", "0"]
        return [*arguments, "--model-code-dir", "model/qwen2_5_vl_qwen3", "--output-dir", str(self.output_dir)]

    def run(self, program: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(program),
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
            **options,
        )

    def derive(self) -> None:
        write_json_atomically(self.config_path, derive_from_donors(self.vl_dir, self.llm_dir, graft_settings()))

    def refused(self, program: str = "graft", **options: Any) -> str:
        """Runs the program, asserts that it ends as it should, and returns the one message."""
        donors_before = file_hashes(self.vl_dir.parent)
        config_before = self.config_path.read_bytes() if self.config_path.exists() else None
        process = self.run(program, **options)
        assert process.returncode == 1, process.stderr
        assert "Traceback" not in process.stderr
        errors = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, process.stderr
        assert errors[0] == process.stderr.splitlines()[-1]
        left = [path.name for path in self.output_dir.rglob("*")] if self.output_dir.exists() else []
        assert left == (["config.json"] if config_before else [])
        if config_before:
            assert self.config_path.read_bytes() == config_before
        assert file_hashes(self.vl_dir.parent) == donors_before
        return errors[0].removeprefix("error: ")


@pytest.fixture
def workplace(root: Path, tmp_path: Path) -> Workplace:
    place = Workplace(root, tmp_path)
    place.derive()
    return place


def rewrite_shard(path: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Loads a bfloat16 shard, lets `change` alter its tensors, writes it, and corrects the index."""
    data = path.read_bytes()
    (header_bytes,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + header_bytes])
    header.pop("__metadata__")
    arrays = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        bits = np.frombuffer(data[8 + header_bytes :][begin:end], "<u2").astype("<u4") << 16
        arrays[name] = bits.view("<f4").reshape(entry["shape"]).copy()
    change(arrays)
    write_safetensors(path, arrays, "bfloat16")
    index = json.loads((path.parent / INDEX).read_text())
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if file != path.name}
    index["weight_map"] |= dict.fromkeys(arrays, path.name)
    write_json(path.parent / INDEX, index)


def test_a_truncated_shard_is_refused_with_its_name(workplace: Workplace) -> None:
    path = workplace.llm_dir / SECOND_SHARD
    path.write_bytes(path.read_bytes()[:-100])
    message = workplace.refused()
    assert message.startswith(f"{path}: {path.stat().st_size} bytes found, {path.stat().st_size + 100} expected")
    assert "fetch or make this file again" in message


@pytest.mark.parametrize("num_bytes", [0, 5, 40])
def test_a_shard_cut_off_inside_its_header_is_refused(workplace: Workplace, num_bytes: int) -> None:
    path = workplace.vl_dir / SECOND_SHARD
    path.write_bytes(path.read_bytes()[:num_bytes])
    assert workplace.refused().startswith(f"{path}: cut off inside its header ({num_bytes} bytes in the file)")


@pytest.mark.parametrize("header", [b"[1, 2]", b'{"a": {"dtype": "F32"}}', b"not JSON"])
def test_a_file_that_is_no_safetensors_file_is_refused(workplace: Workplace, header: bytes) -> None:
    path = workplace.vl_dir / SECOND_SHARD
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    message = workplace.refused()
    assert message.startswith(f"{path}: its header ")
    assert "no safetensors file" in message


def test_a_shard_missing_from_the_directory_is_refused(workplace: Workplace) -> None:
    (workplace.llm_dir / SECOND_SHARD).unlink()
    assert workplace.refused().startswith(
        f"{workplace.llm_dir / SECOND_SHARD}: not found, though {INDEX} names it; fetch this shard again"
    )


def test_a_shard_missing_from_the_index_is_refused(workplace: Workplace) -> None:
    path = workplace.llm_dir / INDEX
    index = json.loads(path.read_text())
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if file != SECOND_SHARD}
    write_json(path, index)
    message = workplace.refused()
    assert message.startswith(f"{workplace.llm_dir / SECOND_SHARD}: a shard that {INDEX} does not name")
    assert "fetch the index again" in message


def test_a_shard_missing_from_the_index_and_the_directory_is_named_by_its_first_tensor(workplace: Workplace) -> None:
    test_index = json.loads((workplace.llm_dir / INDEX).read_text())
    gone = [name for name, file in test_index["weight_map"].items() if file == SECOND_SHARD]
    test_index["weight_map"] = {n: f for n, f in test_index["weight_map"].items() if f != SECOND_SHARD}
    write_json(workplace.llm_dir / INDEX, test_index)
    (workplace.llm_dir / SECOND_SHARD).unlink()
    message = workplace.refused()
    assert f"{workplace.llm_dir / 'config.json'}: implies tensor" in message
    assert any(f"tensor {name} of shape" in message for name in gone)


def test_an_index_that_names_an_absent_tensor_is_refused(workplace: Workplace) -> None:
    path = workplace.vl_dir / INDEX
    index = json.loads(path.read_text())
    index["weight_map"]["visual.blocks.7.norm1.weight"] = SECOND_SHARD
    write_json(path, index)
    message = workplace.refused()
    assert message.startswith(f"{path}: names tensor visual.blocks.7.norm1.weight in {SECOND_SHARD}")
    assert "fetch the index and this shard again" in message


def test_donors_without_weights_are_refused(workplace: Workplace) -> None:
    for path in workplace.llm_dir.glob("model*"):
        path.unlink()
    assert workplace.refused().startswith(f"{workplace.llm_dir}: neither {INDEX} nor model.safetensors found")


def test_donors_whose_heads_do_not_fit_the_mrope_section_are_refused(root: Path, tmp_path: Path) -> None:
    place = Workplace(root, tmp_path, llm={"head_dim": 32})
    message = place.refused("derive_config")
    assert f"{place.llm_dir / 'config.json'}: head_dim is 32; expected 16" in message
    assert "mrope_section [2, 3, 3]" in message
    assert "take a language donor with head_dim 16" in message


def test_a_head_size_that_the_stock_architecture_cannot_have_is_refused(root: Path, tmp_path: Path) -> None:
    place = Workplace(root, tmp_path, llm={"hidden_size": 80})
    process = subprocess.run(
        place.command("derive_config", architecture="qwen2_5_vl"), cwd=root, capture_output=True, text=True, check=False
    )
    assert process.returncode == 1
    assert "head_dim is 16; graft.architecture: qwen2_5_vl expects hidden_size / num_attention_heads = 80 / 4" in (
        process.stderr
    )
    assert not place.config_path.exists()


@pytest.mark.parametrize(
    ("role", "name", "value"),
    [
        ("llm_dir", "model.layers.1.mlp.up_proj.weight", np.nan),
        ("vl_dir", "visual.blocks.1.norm2.weight", -np.inf),
    ],
)
def test_nan_in_a_donor_is_refused_with_the_tensors_name(
    workplace: Workplace, role: str, name: str, value: float
) -> None:
    donor_dir = getattr(workplace, role)
    path = read_checkpoint(donor_dir)[name].path

    def spoil(arrays: dict[str, np.ndarray]) -> None:
        arrays[name].flat[11] = value

    rewrite_shard(path, spoil)
    message = workplace.refused()
    assert message.startswith(f"{path}: tensor {name} holds NaN or infinity, first at index 11 of its values")
    assert "fetch this donor again" in message


def test_a_tensor_that_nothing_plans_for_is_refused(workplace: Workplace) -> None:
    path = workplace.vl_dir / SECOND_SHARD
    rewrite_shard(path, lambda arrays: arrays.update({"visual.adapter.weight": np.ones((2, 2), np.float32)}))
    assert workplace.refused().startswith(f"{path}: tensor visual.adapter.weight is not planned for")


def test_a_missing_tensor_is_refused(workplace: Workplace) -> None:
    name = "model.layers.1.self_attn.q_norm.weight"
    path = read_checkpoint(workplace.llm_dir)[name].path
    rewrite_shard(path, lambda arrays: arrays.pop(name) is None)
    message = workplace.refused()
    assert message.startswith(f"{workplace.llm_dir / 'config.json'}: implies tensor {name} of shape [16]")


def test_a_tensor_of_another_shape_is_refused(workplace: Workplace) -> None:
    name = "visual.blocks.0.attn.qkv.weight"
    path = read_checkpoint(workplace.vl_dir)[name].path
    rewrite_shard(path, lambda arrays: arrays.update({name: np.ones((96, 31), np.float32)}))
    assert workplace.refused().startswith(
        f"{path}: tensor {name} has shape [96, 31]; {workplace.vl_dir / 'config.json'} implies [96, 32]"
    )


def test_a_tensor_that_lies_on_its_side_is_refused(workplace: Workplace) -> None:
    name = "visual.blocks.0.attn.qkv.weight"
    path = read_checkpoint(workplace.vl_dir)[name].path
    rewrite_shard(path, lambda arrays: arrays.update({name: arrays[name].T.copy()}))
    assert "has shape [32, 96]" in workplace.refused()


def test_a_file_that_goes_on_behind_its_tensors_is_refused(workplace: Workplace) -> None:
    path = workplace.llm_dir / SECOND_SHARD
    num_bytes = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"\0" * 16)
    assert workplace.refused().startswith(f"{path}: {num_bytes + 16} bytes found, {num_bytes} expected")


def test_a_header_whose_places_do_not_fit_its_shapes_is_refused(workplace: Workplace) -> None:
    path = workplace.llm_dir / SECOND_SHARD
    name = next(iter(read_shard(path)))
    data = path.read_bytes()
    # The same bytes, called something else of another size.
    path.write_bytes(data.replace(b'"dtype": "BF16"', b'"dtype": "F32" ', 1))
    assert workplace.refused().startswith(f"{path}: the header places tensor {name} at bytes 0")


def test_a_tensor_that_the_index_places_elsewhere_is_refused(workplace: Workplace) -> None:
    path = workplace.llm_dir / INDEX
    index = json.loads(path.read_text())
    name = next(name for name, file in index["weight_map"].items() if file == SECOND_SHARD)
    del index["weight_map"][name]
    write_json(path, index)
    assert workplace.refused().startswith(
        f"{workplace.llm_dir / SECOND_SHARD}: holds tensor {name}, which {INDEX} does"
    )


def test_a_quantised_tensor_is_refused(workplace: Workplace) -> None:
    path = workplace.llm_dir / SECOND_SHARD
    name = next(iter(read_shard(path)))
    data = path.read_bytes()
    # The same bytes, called something else of the same size.
    path.write_bytes(data.replace(b'"dtype": "BF16"', b'"dtype": "I16" ', 1))
    assert workplace.refused().startswith(f"{path}: tensor {name} is I16; expected one of BF16, F16, F32")


def test_weights_that_a_loader_would_cast_to_what_config_json_says_are_refused(workplace: Workplace) -> None:
    path = workplace.llm_dir / "config.json"
    path.write_text(path.read_text().replace('"bfloat16"', '"float16"'))
    workplace.derive()
    refused = workplace.refused()
    assert ": tensor " in refused
    assert f"is BF16; {path} says float16, to which each loader would cast it; correct torch_dtype" in refused


def test_a_donor_without_tokenizer_is_refused_before_a_byte_is_copied(workplace: Workplace) -> None:
    for name in ("tokenizer.json", "merges.txt"):
        (workplace.llm_dir / name).unlink()
    assert workplace.refused().startswith(f"{workplace.llm_dir}: neither tokenizer.json nor vocab.json and merges.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"name_or_path": "/scratch/somebody/qwen3"}',
            "name_or_path is '/scratch/somebody/qwen3', a path of a machine",
        ),
        ('{"name_or_path": ', "special_tokens_map.json: not valid JSON"),
    ],
)
def test_a_donor_that_hands_on_a_path_of_its_machine_is_refused_before_anything_is_trained(
    workplace: Workplace, content: str, message: str
) -> None:
    """The check of the checkpoint would refuse it after both trainings."""
    (workplace.llm_dir / "special_tokens_map.json").write_text(content)
    assert message in workplace.refused()


def test_a_result_inside_a_donor_is_refused(workplace: Workplace) -> None:
    before = file_hashes(workplace.llm_dir)
    command = workplace.command("graft")
    command[command.index("--output-dir") + 1] = str(workplace.llm_dir / "graft")
    process = subprocess.run(command, cwd=workplace.root, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert f"error: {workplace.llm_dir / 'graft'}: lies in the donor {workplace.llm_dir}" in process.stderr
    assert file_hashes(workplace.llm_dir) == before


def test_a_target_that_runs_full_is_refused_with_the_bytes_needed(workplace: Workplace) -> None:
    # A limit on the size of files takes the same code path as a full disk, without a disk to fill.
    message = workplace.refused(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)))
    assert message.startswith(f"{workplace.output_dir / '.graft.partial'}: cannot write there (File too large)")
    assert "bytes are needed" in message
    assert "are free; make room" in message


def test_too_little_free_space_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = os.statvfs(tmp_path)
    few_blocks = os.statvfs_result((*status[:4], 10, *status[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: few_blocks)
    with pytest.raises(UserError, match=rf"1,000,000,000 bytes are needed, {10 * status.f_frsize:,} are free there"):
        shard_writer.check_free_space(tmp_path, 10**9)


def test_a_target_that_cannot_be_written_is_refused(workplace: Workplace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    command = workplace.command("graft")
    command[command.index("--output-dir") + 1] = str(tmp_path / "file/graft")
    process = subprocess.run(command, cwd=workplace.root, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert f"error: {tmp_path / 'file/graft'}: cannot write there (File exists)" in process.stderr


@pytest.fixture
def small_dir(tmp_path: Path) -> Iterator[Path]:
    """On a file system of 1 MiB."""
    with small_file_system(tmp_path / "small", "1m") as directory:
        yield directory


def test_a_small_file_system_is_refused_with_needed_and_free_bytes(workplace: Workplace, small_dir: Path) -> None:
    command = workplace.command("graft")
    command[command.index("--output-dir") + 1] = str(small_dir)
    process = subprocess.run(command, cwd=workplace.root, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert "bytes are needed, 1,048,576 are free there" in process.stderr
    assert list(small_dir.iterdir()) == []


def test_a_read_only_file_system_is_refused(workplace: Workplace, small_dir: Path) -> None:
    remount(small_dir, "ro")
    command = workplace.command("graft")
    command[command.index("--output-dir") + 1] = str(small_dir / "graft")
    process = subprocess.run(command, cwd=workplace.root, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert "cannot write there (Read-only file system)" in process.stderr


def test_an_error_in_one_thread_stops_the_others(tmp_path: Path) -> None:
    deadline_s = time.monotonic() + LIMIT_S

    def endless() -> Iterator[bytes]:
        while time.monotonic() < deadline_s:
            time.sleep(0.001)
            yield b""

    def broken() -> Iterator[bytes]:
        yield b""
        raise UserError("broken on purpose")

    shape = (0,)
    tensors = [OutputTensor("a", "F32", shape, None, endless), OutputTensor("b", "F32", shape, None, broken)]
    with pytest.raises(UserError, match="broken on purpose"):
        write_shards(tensors, lay_out_shards(tensors, 10**9), tmp_path, "graft")
    assert time.monotonic() < deadline_s, "the other thread went on until its own end"


# Makes a graft last: every stretch that is copied waits a little.
SLOW_GRAFT = """
import sys, time
sys.path.insert(0, ".")
from scripts.graft import graft, shard_writer
copy = shard_writer._Stream.copy
def slow(self, stretch):
    time.sleep(0.5)
    copy(self, stretch)
shard_writer._Stream.copy = slow
from scripts.common.errors import run_program
run_program(graft.main)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_graft_shows_no_result_and_the_same_command_makes_it(
    workplace: Workplace, number: signal.Signals
) -> None:
    before = file_hashes(workplace.vl_dir.parent)
    command = workplace.command("graft")
    slow_command = [command[0], "-c", SLOW_GRAFT, *command[3:]]
    with subprocess.Popen(slow_command, cwd=workplace.root, stderr=subprocess.DEVNULL) as process:
        staging_dir = workplace.output_dir / ".graft.partial"
        wait_for(lambda: process.poll() is not None or list(staging_dir.glob("*.safetensors")))
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(LIMIT_S) == (-signal.SIGKILL if number == signal.SIGKILL else 1)
    assert sorted(path.name for path in workplace.output_dir.iterdir() if not path.name.startswith(".")) == [
        "config.json"
    ]
    assert staging_dir.exists() == (number == signal.SIGKILL)

    assert workplace.run("graft").returncode == 0
    assert not staging_dir.exists()
    killed = file_hashes(workplace.output_dir)
    assert INDEX in killed
    assert file_hashes(workplace.vl_dir.parent) == before
    for name in killed.keys() - {"config.json"}:
        (workplace.output_dir / name).unlink()
    assert workplace.run("graft").returncode == 0
    assert file_hashes(workplace.output_dir) == killed
