"""``python -m pathweave.cli``, for launchers that start modules."""

from pathweave.cli import main

main()
