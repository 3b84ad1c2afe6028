"""MMEngine's files, whole or not at all.

MMEngine writes a checkpoint straight to its final name; a run that is killed
meanwhile leaves a truncated file that looks like a good one. Its file backends
can be replaced by name; :func:`.patches.patch_mmengine` replaces the local one
by this one.
"""

from __future__ import annotations

from pathlib import Path

from mmengine.fileio import LocalBackend

from mmkd_rl.utils.checkpoint_io import write_whole


class AtomicLocalBackend(LocalBackend):
    """A ``LocalBackend`` that writes to a temporary name and renames."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file, whose folder is made if need be."""
        write_whole(
            str(filepath), lambda temporary: _write(temporary, bytes(obj)))

    def put_text(self,
                 obj: str,
                 filepath: str | Path,
                 encoding: str = 'utf-8') -> None:
        """Write text to a file."""
        self.put(obj.encode(encoding), filepath)


def _write(path: str, content: bytes) -> None:
    with open(path, 'wb') as file:
        file.write(content)
