"""The embedded base `micro`: its training text, its training and its model card."""
