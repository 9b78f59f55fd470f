"""Names and shapes of a model's tensors, as its config.json implies them; names are the published (legacy) ones."""

from scripts.graft.donor_configs import LanguageShape, VisionShape

Shapes = dict[str, tuple[int, ...]]


def language_shapes(shape: LanguageShape, *, qk_norm: bool, qkv_bias: bool) -> Shapes:
    """Tensors of a Qwen3 (q/k norms) or Qwen2.5-VL (q/k/v biases) language model, in the order of its modules."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    q_size, kv_size = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    shapes: Shapes = {"model.embed_tokens.weight": (shape.vocab_size, hidden)}
    for layer in range(shape.num_layers):
        prefix = f"model.layers.{layer}."
        attention = prefix + "self_attn."
        shapes[attention + "q_proj.weight"] = (q_size, hidden)
        shapes[attention + "k_proj.weight"] = (kv_size, hidden)
        shapes[attention + "v_proj.weight"] = (kv_size, hidden)
        if qkv_bias:
            shapes[attention + "q_proj.bias"] = (q_size,)
            shapes[attention + "k_proj.bias"] = (kv_size,)
            shapes[attention + "v_proj.bias"] = (kv_size,)
        shapes[attention + "o_proj.weight"] = (hidden, q_size)
        if qk_norm:
            shapes[attention + "q_norm.weight"] = (shape.head_dim,)
            shapes[attention + "k_norm.weight"] = (shape.head_dim,)
        shapes[prefix + "mlp.gate_proj.weight"] = (inner, hidden)
        shapes[prefix + "mlp.up_proj.weight"] = (inner, hidden)
        shapes[prefix + "mlp.down_proj.weight"] = (hidden, inner)
        shapes[prefix + "input_layernorm.weight"] = (hidden,)
        shapes[prefix + "post_attention_layernorm.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    if not shape.tie_word_embeddings:
        shapes["lm_head.weight"] = (shape.vocab_size, hidden)
    return shapes


def vision_shapes(shape: VisionShape) -> Shapes:
    """Tensors of Qwen2.5-VL's vision tower and merger, in the order of its modules."""
    hidden, inner, merged = shape.hidden_size, shape.intermediate_size, shape.merged_size
    patch = (hidden, shape.in_channels, shape.temporal_patch_size, shape.patch_size, shape.patch_size)
    shapes: Shapes = {"visual.patch_embed.proj.weight": patch}
    for block in range(shape.depth):
        prefix = f"visual.blocks.{block}."
        shapes[prefix + "norm1.weight"] = (hidden,)
        shapes[prefix + "norm2.weight"] = (hidden,)
        for linear, outputs, inputs in (
            ("attn.qkv", 3 * hidden, hidden),
            ("attn.proj", hidden, hidden),
            ("mlp.gate_proj", inner, hidden),
            ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ):
            shapes[f"{prefix}{linear}.weight"] = (outputs, inputs)
            shapes[f"{prefix}{linear}.bias"] = (outputs,)
    shapes["visual.merger.ln_q.weight"] = (hidden,)
    shapes["visual.merger.mlp.0.weight"] = (merged, merged)
    shapes["visual.merger.mlp.0.bias"] = (merged,)
    shapes["visual.merger.mlp.2.weight"] = (shape.out_hidden_size, merged)
    shapes["visual.merger.mlp.2.bias"] = (shape.out_hidden_size,)
    return shapes
