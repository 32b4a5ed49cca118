"""W + scale * B A, streamed through safetensors files: fp32 sums, one rounding, a few megabytes of memory.

`merge` uses `fold`, `plan_merge` and `row_blocks`.
"""
