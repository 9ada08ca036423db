"""Log lines of our own processes in the pod: on stdout for the container's log, and in a file that goes to S3."""

import logging
import sys
import time
from pathlib import Path


def log_to(path: Path) -> None:
    """Send the lines to stdout and to this file, instead of the file before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    formatter = logging.Formatter("%(asctime)s supervisor: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    handlers: tuple[logging.Handler, ...] = (logging.StreamHandler(sys.stdout), logging.FileHandler(path))
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("botocore").setLevel(logging.WARNING)
