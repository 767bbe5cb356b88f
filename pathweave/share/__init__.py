"""Sharing of paths: one file a path, checked on arrival; a hub to keep it; what differs."""

from pathweave.share.arrival import add, unpack
from pathweave.share.differences import diff, show_differences
from pathweave.share.origin import pack
from pathweave.share.repository import pull, push

__all__ = ["add", "diff", "pack", "pull", "push", "show_differences", "unpack"]
