"""Settings: one YAML per run and `key=value` in, frozen values out, every error in one message.

Other rooms use `parse`, the section classes of `schema`, and `near_names.unknown`.
"""
