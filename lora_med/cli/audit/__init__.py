"""`lora-med audit`: what an adapter remembers, measured; and what was pushed, served and purged.

The names that other modules use are `app` of audit_command.
"""
