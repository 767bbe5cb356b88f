"""Training: one stage, the curriculum of stages, checkpoints, logs."""
