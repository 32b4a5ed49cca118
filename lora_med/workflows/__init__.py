"""What a command and a recipe both call: train, train a tagger, evaluate, plan.

The command line uses `train.train`, `evaluate.make_jobs` and `lm_eval_export`.
"""
