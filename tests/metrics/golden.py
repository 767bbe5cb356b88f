"""What pycocoevalcap gives for 260 caption sets; made by scripts/caption_golden.py."""

import json
from functools import cache
from pathlib import Path

FILE = Path(__file__).parents[1] / "golden" / "captions.json"


@cache
def captions():
    return json.loads(FILE.read_text(encoding="utf-8"))
