"""How ms-swift calls the models and templates of this project."""

from collections.abc import Mapping
from typing import Any

from scripts.common.errors import UserError
from scripts.common.root import ROOT

# Registers the grafted architecture and its template.
MODEL_PLUGIN = ROOT / "model" / "qwen2_5_vl_qwen3" / "swift_plugin.py"

# The placeholders that ms-swift's own Qwen2.5-VL template counts pictures by, whatever the tokenizer says
# (swift/template/templates/qwen.py, Qwen2VLTemplate).
STOCK_IMAGE_TOKEN_ID = 151655
STOCK_VIDEO_TOKEN_ID = 151656
STOCK_TEMPLATE = "qwen2_5_vl"

# Registered by model/qwen2_5_vl_qwen3/swift_plugin.py: the same template with the tokenizer's own ids.
OWN_IDS_TEMPLATE = "qwen2_5_vl_qwen3"
MODEL_TYPES = ("qwen2_5_vl", "qwen2_5_vl_qwen3")


def model_type(model_config: Mapping[str, Any]) -> str:
    """ms-swift's name of the architecture, from the checkpoint's config.json."""
    found = model_config.get("model_type")
    if not isinstance(found, str) or found not in MODEL_TYPES:
        raise UserError(f"config.json: model_type {found} found, one of {', '.join(MODEL_TYPES)} expected")
    return str(found)


def template(model_config: Mapping[str, Any]) -> str:
    """ms-swift's own template where its built-in ids are the checkpoint's, else ours, which asks the tokenizer."""
    ids = (model_config.get("image_token_id"), model_config.get("video_token_id"))
    return STOCK_TEMPLATE if ids == (STOCK_IMAGE_TOKEN_ID, STOCK_VIDEO_TOKEN_ID) else OWN_IDS_TEMPLATE
