"""The demo's own data and donors: digits, a small Qwen2.5-VL and a small Qwen3."""
