"""The training log: one JSON object a line in a file, and the same in words on the terminal."""

import json
import time
from collections.abc import Mapping
from pathlib import Path


class TrainingLog:
    """Appends to ``path``; a resumed run goes on in the same file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path

    def write(self, event: str, values: Mapping[str, float | int | str]) -> None:
        """Record one event with its numbers. Lines are rare, so the file is opened for each."""
        rounded = {k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"event": event, "time": round(time.time(), 1), **rounded}) + "\n")
        words = "  ".join(f"{name} {value}" for name, value in rounded.items())
        print(f"{time.strftime('%H:%M:%S')} {event:9s} {words}", flush=True)
