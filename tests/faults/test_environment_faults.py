"""Environments: what cannot be built, compiled or entered ends with advice and leaves no marker."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.common.files import sha256_of_file


@pytest.fixture(scope="module")
def small_lock_path(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small package with its hashes, out of a real lock."""
    entry = re.search(r"^iniconfig==.*?(?=^\S)", (root / "envs/workflow.lock").read_text(), re.MULTILINE | re.DOTALL)
    assert entry is not None
    path = tmp_path_factory.mktemp("locks") / "train.lock"
    path.write_text(entry.group())
    return path


def run(root: Path, program: str, *arguments: str | Path, path: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts", f"environments.{program}", *map(str, arguments)]
    environment = os.environ | ({"PATH": path} if path else {})
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def build(root: Path, directory: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    place = ("--marker", directory / "env.ok")
    return run(root, "build_environment", *arguments, *place)


@pytest.mark.needs_network
def test_an_environment_is_exactly_its_lock(root: Path, small_lock_path: Path, tmp_path: Path) -> None:
    finished = build(root, tmp_path, "--lock", small_lock_path)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "env.ok").read_text().split() == [sha256_of_file(small_lock_path), str(small_lock_path)]
    shown = subprocess.run(
        [tmp_path / "env/bin/python", "-c", "import iniconfig, importlib.metadata as m; print(len(list(m.distributions())))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert shown.stdout == "1\n"


@pytest.mark.needs_network
def test_an_environment_is_compiled_when_it_is_built(root: Path, small_lock_path: Path, tmp_path: Path) -> None:
    """Or each process compiles all that it imports, where an image is read-only or PYTHONDONTWRITEBYTECODE is set."""
    finished = build(root, tmp_path, "--lock", small_lock_path)
    assert finished.returncode == 0, finished.stderr
    assert list(tmp_path.glob("env/lib/*/site-packages/iniconfig/__pycache__/*.pyc"))


@pytest.mark.needs_network
def test_a_package_with_another_hash_is_refused(root: Path, small_lock_path: Path, tmp_path: Path) -> None:
    forged = tmp_path / "train.lock"
    forged.write_text(re.sub(r"sha256:[0-9a-f]{64}", f"sha256:{'0' * 64}", small_lock_path.read_text()))
    assert build(root, tmp_path, "--lock", small_lock_path).returncode == 0
    made = {path: path.read_text() for path in (tmp_path / "env.ok", *tmp_path.glob("env-*/ok"))}
    finished = build(root, tmp_path, "--lock", forged)
    assert finished.returncode == 1
    assert "Hash mismatch" in finished.stderr
    # The environment so far is as it was, and nothing else is left.
    assert {path: path.read_text() for path in (tmp_path / "env.ok", *tmp_path.glob("env-*/ok"))} == made
    assert len(list(tmp_path.glob("env-*"))) == 1


def test_without_an_index_the_message_says_how_to_do_without(root: Path, small_lock_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "scripts", "environments.build_environment"]
    place = ["--lock", str(small_lock_path), "--marker", str(tmp_path / "env.ok")]
    closed = {
        "UV_INDEX_URL": "http://127.0.0.1:9/simple",
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_HTTP_RETRIES": "0",
    }
    finished = subprocess.run([*command, *place], cwd=root, env=os.environ | closed, capture_output=True, text=True)
    assert finished.returncode == 1
    line = finished.stderr.splitlines()[-1]
    assert re.match(
        r"error: .*train.lock: `.*uv pip sync .* without access to a package index, fill UV_FIND_LINKS", line
    )
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", ".env.lock"}


@pytest.mark.needs_network
def test_flash_attention_that_cannot_be_compiled_says_what_it_needs_and_how_to_do_without(
    root: Path, small_lock_path: Path, tmp_path: Path
) -> None:
    finished = build(root, tmp_path, "--lock", small_lock_path, "--compiled-lock", "envs/flash_attn.lock")
    assert finished.returncode == 1
    assert re.search(
        r"error: envs/flash_attn.lock: .* nvcc .* environments.train: train with attn_impl: sdpa", finished.stderr
    )
    assert not (tmp_path / "env.ok").exists()


APPTAINER = """\
#!/bin/sh
# Stands in for Apptainer: prints the lock in the image, or how it was called. The real one: docs/environments.md.
case "$*" in
    *"cat /opt/vlgraft/"*) cat "$(dirname "$0")/lock-in-image" ;;
    *) echo "$@" ;;
esac
"""
# Writes the file that it shall build, and fails.
FAILING_APPTAINER = '#!/bin/sh\nfor word; do image=$before; before=$word; done; echo half > "$image"; exit 3\n'


@pytest.fixture
def path_with_apptainer(tmp_path: Path) -> str:
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "apptainer").write_text(APPTAINER)
    (bin_dir / "apptainer").chmod(0o755)
    return f"{bin_dir}:{os.environ['PATH']}"


def enter(root: Path, lock_path: Path, directory: Path, path: str) -> subprocess.CompletedProcess[str]:
    (directory / "vlgraft.sif").touch()
    place = ("--marker", directory / "env.ok")
    image = ("--image", directory / "vlgraft.sif", "--lock", lock_path)
    return run(root, "enter_image", *image, *place, path=path)


def test_an_image_of_the_same_lock_is_entered_by_an_interpreter_like_any_other(
    root: Path, small_lock_path: Path, tmp_path: Path, path_with_apptainer: str
) -> None:
    (tmp_path / "bin/lock-in-image").write_text(f"{sha256_of_file(small_lock_path)}  envs/train.lock\n")
    finished = enter(root, small_lock_path, tmp_path, path_with_apptainer)
    assert finished.returncode == 0, finished.stderr
    command = [tmp_path / "env/bin/python", "-c", "two words"]
    elsewhere = tmp_path / "a run"
    elsewhere.mkdir()
    environment = os.environ | {"PATH": path_with_apptainer}
    shown = subprocess.run(command, env=environment, cwd=elsewhere, check=True, capture_output=True, text=True)
    options = f"--quiet exec --nv --bind {root} --bind {elsewhere} {tmp_path}/vlgraft.sif"
    assert shown.stdout == f"{options} /opt/vlgraft/train/bin/python -c two words\n"


def test_an_image_of_another_lock_is_refused(
    root: Path, small_lock_path: Path, tmp_path: Path, path_with_apptainer: str
) -> None:
    (tmp_path / "bin/lock-in-image").write_text(f"{'0' * 64}  envs/train.lock\n")
    finished = enter(root, small_lock_path, tmp_path, path_with_apptainer)
    assert finished.returncode == 1
    assert re.search(
        r"vlgraft.sif: its environment train was built from a lock with sha256 0{64}, but", finished.stderr
    )
    assert not (tmp_path / "env.ok").exists()


def test_without_apptainer_the_message_says_how_to_do_without(
    root: Path, small_lock_path: Path, tmp_path: Path
) -> None:
    nothing = str(tmp_path / "empty")
    entered = enter(root, small_lock_path, tmp_path, nothing)
    built = run(
        root, "build_image", "--definition", "envs/vlgraft.def", "--image", tmp_path / "new.sif", path=nothing
    )  # fmt: skip
    for finished in (entered, built):
        assert finished.returncode == 1
        assert re.search(r"error: apptainer: not found; .* environments.kind: venv", finished.stderr)
    assert not (tmp_path / "new.sif").exists()


def test_an_image_that_was_not_built_whole_has_no_name(root: Path, tmp_path: Path, path_with_apptainer: str) -> None:
    (tmp_path / "bin/apptainer").write_text(FAILING_APPTAINER)
    built = run(
        root, "build_image", "--definition", "envs/vlgraft.def", "--image", tmp_path / "new.sif", path=path_with_apptainer
    )  # fmt: skip
    assert built.returncode == 1
    assert "ended with status 3" in built.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"bin"}
