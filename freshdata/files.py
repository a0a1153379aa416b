"""Files that are replaced whole, so that no reader ever sees half of one."""

import os
from pathlib import Path


def replace_file(path: Path, content: str, *, private: bool = False) -> None:
    """Put a file in the place of another, or of none.

    Args:
        path: The file; its folder is there.
        content: What it is to hold.
        private: Whether only its owner may read it; such a file is on the disk when this returns.
    """
    replacement = path.with_suffix(f".{os.getpid()}.tmp")
    mode = 0o600 if private else 0o666
    with os.fdopen(os.open(replacement, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(content)
        if private:
            file.flush()
            os.fsync(file.fileno())
    replacement.replace(path)
