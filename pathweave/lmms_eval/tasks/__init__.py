"""MCL-mini as tasks of lmms-eval: a YAML file for each, and what these files name."""
