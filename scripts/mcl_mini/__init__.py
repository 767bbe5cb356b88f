"""Builds MCL-mini, the small benchmark in data/mcl-mini, from openly licensed packages."""
