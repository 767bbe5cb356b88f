"""The model: a base and its paths, from prompts and features to tokens and answers."""
