"""Grids of runs over methods, orders and seeds, and the report of what they show."""
