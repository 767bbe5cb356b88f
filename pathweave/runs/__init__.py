"""Runs on disk: directories of paths, connectors and runs, and loading a model from them."""
