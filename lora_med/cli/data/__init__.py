"""`lora-med data`: list, get, read, check, preview, deidentify, purge.

`main` loads `data_command`.
"""
