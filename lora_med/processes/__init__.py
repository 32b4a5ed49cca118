"""Several processes as one run: their places, what they tell each other, agreement, and their launch.

Others use `rank` and `world_size`; `together`, `telling_others`, `mark` and `saving`; and `require_agreement`.
"""
