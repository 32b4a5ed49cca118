"""From stored ratings to the verdict: unsealing, intervals, tests, agreement, the check of our own metric, the export.

The command line uses `study_result` and `study_export`; `blind/draw_plan.py` uses `detectable_wins`.
"""
