"""The prompt templates, frozen once released, and entities as JSON.

`find_template` gives one by name; the modules hold one subject each.
"""
