"""A file that may change while it is used."""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

Content = TypeVar("Content")


class Watched(Generic[Content]):
    """A file's content as the file is now: it is read again when it was replaced or written.

    Args:
        path: The file.
        read: Reads it.
        absent: What counts when there is no file.
    """

    def __init__(self, path: Path, read: Callable[[Path], Content], absent: Content) -> None:
        self._path = path
        self._read = read
        self._absent = self._content = absent
        self._seen: tuple[int, int, int] | None = None

    def __call__(self) -> Content:
        """The content; what reading raises is raised each time, until the file can be read."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._seen, self._content = None, self._absent
            return self._absent
        state = (found.st_mtime_ns, found.st_ino, found.st_size)
        if state != self._seen:
            self._content = self._read(self._path)
            self._seen = state
        return self._content
