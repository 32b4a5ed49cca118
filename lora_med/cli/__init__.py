"""The command line: one module per command, each loaded only when it is called.

Nothing below uses it; `main` is the entry of `lora-med`, `recipe` that of the scripts in recipes/.
"""
