"""A folder with the stored outputs of one teacher.

    meta.json    description of the outputs, see :mod:`.identity`
    rows         one row for each view of each image, view * N + image
    checksums    CRC-32 of the view that a row is of, 0: not there yet

Both files are mapped into memory and have their whole size from the start, so
that a full disk is noticed before training and not by a signal within it. A
row is written before its checksum, and both reach the disk in this order, so
that a process may be killed at any time, and several may fill one store.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ByteSize

from mmkd_rl.options import ConfigError
from mmkd_rl.utils.checkpoint_io import write_whole

#: Rows that a process writes before it waits for the disk.
_UNFLUSHED = 8192
_CHECKSUM = np.dtype('u4')


class Store:
    """Rows of one teacher, by view and image.

    Args:
        folder: Where the files are; made if there is none.
        identity: Description of the outputs, see :func:`identity_of`.
        dtype: Type of a row.
        images: N.
        views: Number of views; a store with more is used as it is, one with
            fewer becomes larger.
        budget: Largest size in bytes; ``None``: the space on the disk.

    Raises:
        ConfigError: The folder has a store with another description; or the
            store does not fit the budget or the disk, or cannot be written.
    """

    def __init__(self, folder: str, identity: dict, dtype: np.dtype,
                 images: int, views: int, budget: int | None = None) -> None:
        self.folder = folder
        needed = row_bytes(dtype) * images * views
        if budget is not None and needed > budget:
            raise ConfigError(
                'budget', f'is {_size(budget)}, and {images} images with '
                f'{views} views of {row_bytes(dtype)} bytes need '
                f'{_size(needed)}; take fewer views, a smaller top_k, or '
                "features='pooled' or 'uint8'")
        try:
            os.makedirs(folder, exist_ok=True)
            with self._lock():
                views = max(views, self._check(identity))
                self.size = row_bytes(dtype) * images * views
                rows = images * views
                self._allocate('rows', rows * dtype.itemsize)
                self._allocate('checksums', rows * _CHECKSUM.itemsize)
                self._note(dict(identity, views=views))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise self._no_space(views * images * row_bytes(dtype)
                                     ) from error
            raise ConfigError(
                'folder', f'{folder!r} cannot be written: {error}') from error
        self._rows = np.memmap(self._path('rows'), dtype, 'r+', shape=(rows, ))
        self._checksums = np.memmap(self._path('checksums'), _CHECKSUM, 'r+',
                                    shape=(rows, ))
        #: Rows that this process has written and not flushed: checksum by
        #: number.
        self._written: dict[int, int] = {}
        atexit.register(self.flush)

    def __len__(self) -> int:
        return len(self._checksums)

    def known(self, numbers: np.ndarray) -> np.ndarray:
        """Checksums of the views whose rows are there, [B]; 0: not there."""
        known = np.array(self._checksums[numbers])
        for i in np.flatnonzero(known == 0) if self._written else ():
            known[i] = self._written.get(int(numbers[i]), 0)
        return known

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """Rows that are there, [B]."""
        return np.array(self._rows[numbers])

    def write(self, numbers: np.ndarray, rows: np.ndarray,
              checksums: np.ndarray) -> None:
        """Write rows.

        Args:
            numbers: Numbers of the rows, [B].
            rows: The rows, [B].
            checksums: Of their views, none of them 0, [B].
        """
        self._rows[numbers] = rows
        self._written.update(zip(numbers.tolist(), checksums.tolist()))
        if len(self._written) >= _UNFLUSHED:
            self.flush()

    def flush(self) -> None:
        """Bring all written rows to the disk, then their checksums."""
        if self._written:
            self._rows.flush()
            numbers = np.fromiter(self._written, np.int64)
            self._checksums[numbers] = np.fromiter(
                self._written.values(), _CHECKSUM)
            self._checksums.flush()
            self._written.clear()

    def absent(self, count: int) -> np.ndarray:
        """Numbers of those of the first ``count`` rows that are not there."""
        self.flush()
        return np.flatnonzero(self._checksums[:count] == 0)

    def count(self) -> int:
        """Number of rows that are there."""
        self.flush()
        return int(np.count_nonzero(self._checksums))

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Wait for other processes that make the same store. The system ends
        the lock with the process."""
        with open(self._path('lock'), 'w') as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _check(self, identity: dict) -> int:
        """Compare with a store that is there.

        Returns:
            The number of its views; 0: there is none.

        Raises:
            ConfigError: The store has another description; the message names
                the entries that differ.
        """
        try:
            with open(self._path('meta.json')) as file:
                found = json.load(file)
        except FileNotFoundError:
            for name in ('rows', 'checksums'):  # of what, is not known
                Path(self._path(name)).unlink(missing_ok=True)
            return 0
        except ValueError as error:
            raise ConfigError('folder', f'{self._path("meta.json")!r} cannot '
                              f'be read: {error}; remove the store') from error
        views = found.pop('views')
        other = [f'{name} {found.get(name)!r}, and now '
                 f'{identity.get(name)!r}'
                 for name in {**found, **identity}
                 if found.get(name) != identity.get(name)]
        if other:
            raise ConfigError(
                'folder', f'the store {self.folder!r} is of something else: '
                f'{"; ".join(map(_short, other))}. Remove it, or give another '
                'folder')
        return views

    def _note(self, identity: dict) -> None:
        def write(path: str) -> None:
            Path(path).write_text(json.dumps(identity, indent=1))

        write_whole(self._path('meta.json'), write)

    def _allocate(self, name: str, size: int) -> None:
        """Give a file its whole size, with space for each byte."""
        flags = os.O_RDWR | os.O_CREAT
        file = os.open(self._path(name), flags, 0o666)
        try:
            now = os.fstat(file).st_size
            if now < size:
                free = shutil.disk_usage(self.folder).free
                if size - now > free:
                    raise OSError(errno.ENOSPC, 'no space left')
                try:
                    os.posix_fallocate(file, now, size - now)
                except OSError:
                    os.ftruncate(file, now)
                    raise
        finally:
            os.close(file)

    def _no_space(self, size: int) -> ConfigError:
        free = shutil.disk_usage(self.folder).free
        return ConfigError(
            'folder', f'the store {self.folder!r} needs {_size(size)}, and '
            f'the disk has {_size(free)} left; take fewer views, a smaller '
            "top_k, or features='pooled' or 'uint8', or another folder")


def kind_in(folder: str) -> Any:
    """How features are stored in a folder, see :data:`.rows.Features`;
    ``None``: there is no store that can be read."""
    try:
        with open(os.path.join(folder, 'meta.json')) as file:
            return json.load(file).get('features')
    except (OSError, ValueError):
        return None


def row_bytes(dtype: np.dtype) -> int:
    """Bytes that are stored for a view, with its checksum."""
    return dtype.itemsize + _CHECKSUM.itemsize


def _size(number: int) -> str:
    return ByteSize(number).human_readable(decimal=True)


def _short(text: str) -> str:
    return text if len(text) < 400 else text[:400] + '...'
