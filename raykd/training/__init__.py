"""Training: the plan, one step, the DeepSpeed engine, checkpoints, the worker, and the Ray Train shell around it."""
