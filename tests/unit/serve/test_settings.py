"""What `evaluate.serve` may say."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.evaluation_inputs import serve_settings
from scripts.common.errors import UserError
from scripts.common.settings import json_settings, settings_from
from scripts.serve.settings import DECODING_FLAGS, ServeSettings


@pytest.mark.parametrize("name", ["config.yaml", "config/demo.yaml", "config/simple_vl_8b.yaml"])
def test_the_section_of_each_shipped_configuration_is_read(root: Path, name: str) -> None:
    section = yaml.safe_load((root / name).read_text())["evaluate"]["serve"]
    settings = settings_from(ServeSettings, section, "evaluate.serve")
    assert vars(settings) == section
    assert settings.served_name == "Qwen3-VL"


def test_a_name_and_a_port_may_be_chosen() -> None:
    settings = serve_settings(flags={"served_model_name": "mine", "port": 8000})
    assert (settings.served_name, settings.port) == ("mine", 8000)
    assert (serve_settings().served_name, serve_settings().port) == ("Qwen3-VL", None)


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {"flags": {"vllm_max_model_len": 8, "vllm_enforce_eager": True}},
            [
                "evaluate.serve.flags.vllm_enforce_eager: contradicts backend transformers; remove it or set backend: vllm",
                "evaluate.serve.flags.vllm_max_model_len: contradicts backend transformers; remove it or set backend: vllm",
            ],
        ),
        (
            {"flags": {"host": "0.0.0.0"}},
            ["evaluate.serve.flags.host: set by vlgraft itself from the rest of the configuration; remove it here"],
        ),
        (
            {"num_replicas": 2, "flags": {"port": 8000}},
            ["evaluate.serve.flags.port: contradicts num_replicas above 1, which need a port each; remove it"],
        ),
    ],
)
def test_settings_that_contradict_each_other_are_found_a_line_each(changes: dict[str, Any], lines: list[str]) -> None:
    assert list(serve_settings(**changes).findings("evaluate.serve")) == lines


def test_a_section_given_by_hand_is_checked_too() -> None:
    section = vars(serve_settings(flags={"vllm_max_model_len": 8}))
    with pytest.raises(
        UserError, match=r"evaluate\.serve\.flags\.vllm_max_model_len: contradicts backend transformers"
    ):
        json_settings(ServeSettings, "evaluate.serve")(json.dumps(section))


def test_what_a_checkpoint_would_decide_for_itself_must_be_said() -> None:
    """Or the parent is asked with a repetition_penalty of 1.05, and its graft without."""
    for flag in DECODING_FLAGS:
        (line,) = serve_settings(flags={flag: None}).findings("evaluate.serve")
        assert line.startswith(
            f"evaluate.serve.flags.{flag}: not set, so that each checkpoint's generation_config.json"
        )


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"repetition_penalty": 0}, "repetition_penalty: 0 found; expected a number above 0"),
        ({"repetition_penalty": "1.0"}, "repetition_penalty: '1.0' found; expected a number above 0"),
        ({"top_p": 1.5}, "top_p: 1.5 found; expected a number above 0, up to 1"),
        ({"top_k": 0.5}, "top_k: 0.5 found; expected a whole number from -1"),
        ({"adapters": ["x"]}, "adapters: another model than the checkpoint would be asked"),
        ({"quant_bits": 4}, "quant_bits: another model than the checkpoint would be asked"),
    ],
)
def test_what_the_first_server_would_end_of_or_load_besides_is_found_before(
    flags: dict[str, Any], expected: str
) -> None:
    (line,) = serve_settings(flags=flags).findings("evaluate.serve")
    assert line.startswith(f"evaluate.serve.flags.{expected}")
