"""Training with differential privacy: draws of patients, their clipped gradients, the noise, and what it costs.

Tasks use `check_private` and the trainers of `private_trainer`; the planner uses `Mechanism`.
"""
