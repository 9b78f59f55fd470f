"""Each lock is what its .in resolves to, for every platform, with hashes and without an address of an index."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

LOCKS = ["workflow", "train", "evaluate", "serve", "serve_cpu", "flash_attn", "app"]


@pytest.mark.full
@pytest.mark.needs_network
@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_what_its_request_resolves_to(root: Path, tmp_path: Path, name: str) -> None:
    lock_path = tmp_path / f"{name}.lock"
    shutil.copy(root / f"envs/{name}.lock", lock_path)  # so that its versions are kept where they still serve
    command = re.search(r"^#    (uv pip compile .*) -o envs/\w+\.lock$", lock_path.read_text(), re.MULTILINE)
    assert command is not None
    arguments = shlex.split(command.group(1))[1:]
    subprocess.run(
        [root / ".venv/bin/uv", *arguments, "--quiet", "-o", lock_path], cwd=root, check=True, capture_output=True
    )
    resolved, locked = (
        [line for line in path.read_text().splitlines() if not line.startswith("#")]
        for path in (lock_path, root / f"envs/{name}.lock")
    )
    assert resolved == locked


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_a_hash_for_each_package_and_no_address(root: Path, name: str) -> None:
    text = (root / f"envs/{name}.lock").read_text()
    assert "://" not in text
    packages = re.findall(r"^\S+==.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)*", text, re.MULTILINE)
    assert packages
    assert all("--hash=" in package for package in packages)
