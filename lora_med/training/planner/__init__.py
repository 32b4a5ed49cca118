"""What a run will need before it starts: memory by phase, the batch that fits, the time of a step.

The command `plan` and `batch: auto` use `run_memory` and `step_time`.
"""
