"""The pages of `lora-med review`, served on loopback only.

`run_review.py` starts them; `page_guard.py` holds the rules that every answer keeps.
"""
