"""What the files of a stranger's model may ask of this machine: rendering a chat template (`limit_templates`), and the
sizes and settings of its configuration (`check_sizes`, `check_generation`).
"""
