"""Scripts that are run by hand; not part of the installed package."""
