"""`lora-med eval`: score adapters against their base, compare reports, export tasks for lm-evaluation-harness.

`main` loads `eval_command`.
"""
