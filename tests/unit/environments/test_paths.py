"""Each role has its environment."""

from scripts.environments.paths import environment_dir, serving_role


def test_each_backend_is_served_from_its_environment() -> None:
    assert [serving_role(backend) for backend in ("transformers", "vllm")] == ["train", "serve"]


def test_the_configuration_names_the_environment_that_trains_and_where_all_lie() -> None:
    environments = {"kind": "venv", "train": "train_flash_attn"}
    assert environment_dir(environments, "train") == ".venvs/train_flash_attn"
    assert environment_dir(environments, "serve") == ".venvs/serve"
    assert environment_dir(environments | {"kind": "apptainer"}, "serve") == ".venvs/image/serve"
