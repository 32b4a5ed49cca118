"""`lora-med audit`: what an adapter remembers, measured.

The names that other modules use are `app` of audit_command.
"""
