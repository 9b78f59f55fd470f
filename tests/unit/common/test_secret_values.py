"""What is taken for a secret in a configuration, and what is not."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.common.secret_values import is_secret_name, is_secret_text, secret_findings, secret_keys, without_tokens

SECRET_NAMES = """
    WANDB_API_KEY SWANLAB_API_KEY HF_TOKEN HUGGING_FACE_HUB_TOKEN MODELSCOPE_API_TOKEN OPENAI_API_KEY AWS_SECRET_ACCESS_KEY
    AWS_ACCESS_KEY_ID AWS_SESSION_TOKEN MLFLOW_TRACKING_PASSWORD CLEARML_API_SECRET_KEY GITHUB_PAT AZURE_SAS MYSQL_PWD MY_KEY_2
    AZURE_STORAGE_CONNECTION_STRING hub_token swanlab_secret swanlab_webhook_url api_key apiKey accessToken access-token token
"""
OTHER_NAMES = """
    IMAGE_MAX_TOKEN_NUM TOKENIZERS_PARALLELISM new_special_tokens pad_token image_token reft_layer_key ssl_keyfile
    vera_projection_prng_key WANDB_PROJECT BYPASS SSH_AUTH_SOCK MAX_PIXELS max_new_tokens key keys
"""
SECRET_TEXTS = [
    "http://me:pw@proxy.example:3128", "HTTPS://me:p@ss@hub.example/x", "https://abcdef@hub.example", "me:pw@proxy:3128",
    "postgres://me:p/w@db/runs", "s3://bucket/data?token=abcdef", "https://x.example/y?X-Amz-Signature=0123456",
    "hf_abcdefghijklmnopqrst", "ghp_0123456789abcdefghij", "sk-proj-0123456789abcdef", "AKIAABCDEFGHIJKLMNOP",
    "ms-01234567-0123-0123-0123-0123456789ab", "-----BEGIN OPENSSH PRIVATE KEY-----", "Authorization: Basic bWU6cHc=",
    "api_key=0123", "entity=me,WANDB_API_KEY=0123456",
]  # fmt: skip
OTHER_TEXTS = [
    "http://127.0.0.1:8000/v1", "http://host:8080/a@b", "git@github.com:a/b.git", "ssh://git@github.com/a/b", "lr=0.0001",
    "hf::org/name@main", "org/name:subset#100", "You are {model}. key: value", "a task-description-of-some-length",
    "data/hf_rows.jsonl", "/data/sort_key=2024/rows.jsonl", "0123456789abcdef0123456789abcdef01234567",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", OTHER_NAMES.split())
def test_other_names_are_none_of_a_secret(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize("text", SECRET_TEXTS)
def test_secrets_are_known_by_their_looks(text: str) -> None:
    assert is_secret_text(text)


@pytest.mark.parametrize("text", OTHER_TEXTS)
def test_other_texts_are_no_secret(text: str) -> None:
    assert not is_secret_text(text)
    assert without_tokens(text) == text


def test_of_ms_swifts_flags_only_keys_and_tokens_are_secret(root: Path) -> None:
    known = json.loads((root / "config/known_flags.json").read_text())
    assert {name for flags in known.values() for name in flags if is_secret_name(name)} == {
        "api_key", "hub_token", "swanlab_secret", "swanlab_token", "swanlab_webhook_url",
    }  # fmt: skip


def test_no_shipped_configuration_holds_a_secret(root: Path) -> None:
    paths = [root / "config.yaml", *(root / "config").glob("*.yaml"), *(root / "tests/data").glob("*.yaml")]
    assert len(paths) > 3
    for path in paths:
        assert secret_findings(yaml.safe_load(path.read_text())) == [], path


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        ({"a": {"HF_TOKEN": "x"}, "b": 1}, ["a.HF_TOKEN"]),
        ({"flags": {"hub_token": None, "api_key": "", "use_key": True}}, []),
        ({"flags": {"optim_args": {"my_key": 5}}}, ["flags.optim_args.my_key"]),
        ({"flags": {"model_kwargs": '{"hf_token": "x"}'}}, ["flags.model_kwargs.hf_token"]),
        ({"flags": {"system": "{question} is no JSON"}}, []),
        ({"datasets": ["a.jsonl", "https://me:pw@x/y"]}, ["datasets"]),
    ],
)
def test_secrets_are_found_wherever_they_stand_and_named_by_their_keys(value: Any, keys: list[str]) -> None:
    assert list(secret_keys(value)) == keys


def test_a_finding_names_the_key_and_never_the_value() -> None:
    (finding,) = secret_findings({"environment": {"WANDB_API_KEY": "0a1b2c"}}, "stage1")
    assert finding.startswith("stage1.environment.WANDB_API_KEY: a secret")
    assert "export it" in finding
    assert "0a1b2c" not in finding


def test_a_password_in_a_message_is_hidden() -> None:
    line = "https://hub.example: could not be reached through http://me:pw@proxy:3128 with hf_abcdefghijklmnopqrst"
    assert without_tokens(line) == (
        "https://hub.example: could not be reached through http://(secret)@proxy:3128 with (secret)"
    )
