"""What a command and a recipe both call: training on text or tags, evaluation, task files for lm-evaluation-harness.

The command line uses `train.train`, `evaluate.make_jobs` and `lm_eval_export`.
"""
