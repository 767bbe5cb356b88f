"""One script a question, each a table and a JSON file: ``python -m benchmarks.NAME --help``."""
