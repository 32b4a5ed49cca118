"""What the engine is made of: forward passes, the prefix cache, the choice of a token, and an answer's text and form.

Only `serving.engine` uses these modules.
"""
