"""The original data sets of the MCL benchmark: declarations, readers, checks, conversion."""
