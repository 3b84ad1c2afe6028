"""MMEngine's file backend with atomic writes.

MMEngine writes a checkpoint directly to its final name; if the run is killed
meanwhile, a truncated file remains that looks like a valid one. File backends
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
        """Write bytes to a file; its folder is made if needed."""
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
