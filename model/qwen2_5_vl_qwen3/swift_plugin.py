"""ms-swift 4.6's view of the grafted architecture, for `--external_plugins`, in training and in `swift deploy`.

Registers
- the model type `qwen2_5_vl_qwen3`: loaded by its own class (with `--model_type qwen2_5_vl` ms-swift would ignore the
  checkpoint's architecture, drop the q/k norms and only print a report);
- its module groups, which is what `--freeze_vit`, `--freeze_llm` and `--freeze_aligner` mean;
- the template `qwen2_5_vl_qwen3`: Qwen2.5-VL's, with the placeholder ids read from the tokenizer. The stock template has
  Qwen's ids built in, so a checkpoint with a smaller vocabulary needs this one, whatever its architecture.
"""

import sys
from pathlib import Path
from typing import Any

from swift.model import Model, ModelGroup, ModelMeta, MultiModelKeys, register_model, register_model_arch
from swift.model.models.qwen import Qwen2VLLoader
from swift.template import register_template
from swift.template.templates.qwen import Qwen2_5VLTemplate, QwenTemplateMeta

# ms-swift puts this file's own directory on the path; the package needs the one above.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from qwen2_5_vl_qwen3 import Qwen2_5_VLQwen3ForConditionalGeneration

NAME = "qwen2_5_vl_qwen3"


class TokenizerIdsTemplate(Qwen2_5VLTemplate):
    """Qwen2.5-VL's template with the tokenizer's own placeholder ids."""

    @property
    def image_token_id(self) -> int:
        return self.tokenizer.convert_tokens_to_ids("<|image_pad|>")

    @property
    def video_token_id(self) -> int:
        return self.tokenizer.convert_tokens_to_ids("<|video_pad|>")


class GraftLoader(Qwen2VLLoader):
    """Loads the grafted class; processor and pixel limits are Qwen2-VL's."""

    def get_model(self, model_dir: str, config: Any, processor: Any, model_kwargs: dict[str, Any]) -> Any:
        self.auto_model_cls = self.auto_model_cls or Qwen2_5_VLQwen3ForConditionalGeneration
        return super().get_model(model_dir, config, processor, model_kwargs)


register_template(QwenTemplateMeta(NAME, template_cls=TokenizerIdsTemplate), exist_ok=True)
register_model_arch(
    MultiModelKeys(
        NAME,
        language_model=["model.language_model", "lm_head"],
        aligner="model.visual.merger",
        vision_tower="model.visual",
        mlp="model.language_model.layers.{}.mlp",
    ),
    exist_ok=True,
)
register_model(
    ModelMeta(
        NAME,
        [ModelGroup([Model(f"local/{NAME}", f"local/{NAME}")])],
        GraftLoader,
        template=NAME,
        model_arch=NAME,
        architectures=["Qwen2_5_VLQwen3ForConditionalGeneration"],
        is_multimodal=True,
        requires=["transformers>=5", "qwen_vl_utils>=0.0.14"],
        tags=["vision", "video"],
    ),
    exist_ok=True,
)
