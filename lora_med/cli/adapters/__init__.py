"""`lora-med adapters`: list, show, verify, check, adopt, compose, diff, push, remove.

`main` loads `adapters_command`.
"""
