"""`lora-med review`: the pages of a report, and a study of blind rating from its plan to its verdict.

`review_command.py` holds the group; the other module holds the steps of a study.
"""
