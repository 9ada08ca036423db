"""Where a report's page is written on this machine."""

from pathlib import Path

from evaluation.errors import InvalidConfiguration


def write_page(file: Path, page: bytes, option: str = "--output") -> Path:
    """Write the file, with its folders; raises InvalidConfiguration where that is not possible."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(page)
    except OSError as error:
        what = f"The page cannot be written to {file}"
        raise InvalidConfiguration(what, error.strerror or str(error), f"Choose another file with {option}.") from error
    return file
