"""One training step: loss on labeled tokens, fused LoRA layers, cached frozen layers, out-of-memory recovery.

The trainer uses `loss`, `fused_lora`, `frozen_cache` and `self_test`.
"""
