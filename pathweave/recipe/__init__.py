"""Recipes: the schema, the options of each method, and reading them from YAML."""
