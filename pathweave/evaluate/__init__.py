"""Answers, likelihood ranking, metrics and the score matrix."""
