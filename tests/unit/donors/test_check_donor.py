"""What config.json says of the embedding is held against the weights before anything is allocated by it."""

import json
from pathlib import Path

import pytest

from helpers.tiny_donor_files import write_tiny_donors
from scripts.common.errors import UserError
from scripts.donors.check_donor import check_embedding
from scripts.donors.safetensors_files import read_checkpoint


def test_a_vocabulary_that_the_weights_do_not_have_is_blamed_on_config_json(tmp_path: Path) -> None:
    _, directory = write_tiny_donors(tmp_path)
    (embedding,) = [t for name, t in read_checkpoint(directory).items() if name.endswith("embed_tokens.weight")]
    num_rows = embedding.shape[0]
    config = json.loads((directory / "config.json").read_text())
    assert check_embedding("llm", directory) == num_rows
    (directory / "config.json").write_text(json.dumps(config | {"vocab_size": 10**12}))
    with pytest.raises(
        UserError, match=rf"config\.json: vocab_size is 10+, but .*embed_tokens.weight has {num_rows} rows"
    ):
        check_embedding("llm", directory)
