"""Read checkpoints without running code, and write them atomically.

Reading uses PyTorch's ``weights_only`` loader, which runs no pickled code,
with the few harmless types allowed that trainers write into checkpoints.
Objects of other packages (options, records) are read as empty dicts in place
of the class that is named in the file, which is not imported. Files are
written to a temporary name first, so that a file under its final name is
always complete.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import hashlib
import importlib
import logging
import os
import pathlib
import pickle
import re
import sys
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from mmengine.fileio import get_local_path
from mmengine.logging import print_log
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.runner import find_latest_checkpoint
from mmengine.runner.checkpoint import (
    _get_mmengine_home,
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)

#: Modules of the names in pickled arrays, in NumPy 2 and NumPy 1.
_NUMPY = ('numpy._core.multiarray', 'numpy.core.multiarray')
#: Packages whose objects are more than records.
_NOT_RECORDS = {'torch', 'torchvision', 'numpy', *sys.stdlib_module_names}
#: Ends of names of files in PyTorch's format.
_SUFFIXES = ('.pth', '.pt', '.ckpt', '.bin', '.tar')
#: Beginnings of files of other kinds.
_OTHERS = {
    b'version https://git-lfs': 'it is a pointer of Git LFS; fetch the file '
    'with git lfs pull',
    b'<': 'it is a page of HTML or XML; the download has failed',
    b'\x1f\x8b': 'it is packed with gzip; unpack it',
    b'bzh': 'it is packed with bzip2; unpack it',
    b'\xfd7zxz': 'it is packed with xz; unpack it',
    b'\x89hdf': 'it is an HDF5 file (Keras)',
    b'\x80\x04': 'it is a pickle without tensors of PyTorch; convert it with '
    'the code that wrote it, and save a dict of tensors with torch.save',
}
#: Names of published weights: the registry with their addresses.
_COLLECTIONS = {'torchvision': get_torchvision_models,
                'open-mmlab': get_external_models,
                'openmmlab': get_external_models,
                'mmcls': get_mmcls_models}


@lru_cache
def _safe_types() -> list[Any]:
    """Types in trainers' checkpoints that cannot run code when read."""
    core = importlib.import_module(_NUMPY[np.__version__.startswith('1.')])
    arrays = [(getattr(core, name), f'{module}.{name}')
              for name in ('_reconstruct', 'scalar') for module in _NUMPY]
    dtypes = {type(np.dtype(t)) for t in '?bBhHiIlLqQefdFDUSMmO'}
    # A path of the other system cannot be made here.
    paths = [(getattr(pathlib, f'Pure{name}'), f'{module}.{name}')
             for name in ('PosixPath', 'WindowsPath')
             for module in ('pathlib', 'pathlib._local')]
    return [
        HistoryBuffer, slice, np.ndarray, np.dtype, *arrays, *dtypes,
        argparse.Namespace, *paths, (_statistic, 'builtins.getattr')
    ]


def _statistic(owner: Any, name: str) -> Any:
    """Restricted ``getattr`` for checkpoints.

    A HistoryBuffer holds its own methods, which pickle stores as
    ``getattr(HistoryBuffer, 'min')``; all other attributes are refused.
    """
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    raise pickle.UnpicklingError(
        f'Unsupported global: getattr of {owner!r}.{name}')


def load(path: str, key: str = 'checkpoint',
         map_location: Any = 'cpu') -> Any:
    """Read a checkpoint without running anything in it.

    Args:
        path: A file, ``file://...``, an ``https://`` address (``http://`` is
            fetched over https), a name of MMEngine's collections
            (``torchvision://resnet18``, ``open-mmlab://...``, ``mmcls://...``),
            or a path for MMEngine's file clients.
        key: Config key of the path, for messages.
        map_location: Device of the tensors, see ``torch.load``.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is truncated, no checkpoint, or has more than
            tensors and plain values; or the address cannot be fetched.
    """
    with ExitStack() as stack:
        what = f'{key}={path!r}'
        local = _local_file(path, key, stack)
        if local.endswith('.safetensors'):
            return _load_safetensors(local, what, map_location)
        try:
            return _load_pickle(local, map_location, what)
        except pickle.UnpicklingError as error:
            # torch raises this for code as well as for garbage.
            reason = str(error).split('WeightsUnpickler error:')[-1]
            culprit = re.search(r'GLOBAL (\S+)', reason)
            if culprit:
                raise ValueError(
                    f'{what} is a pickle with more than tensors in '
                    f'it ({culprit[1]}); it was not run. Save its '
                    'state_dict alone and use that file') from error
            raise ValueError(f'{what} is not a PyTorch checkpoint: '
                             f'{_kind(local) or _first_line(reason)}'
                             ) from error
        except (RuntimeError, EOFError, OSError, LookupError, ValueError,
                AttributeError, TypeError) as error:
            # torch's reader raises any of these for files of other kinds.
            raise ValueError(
                f'{what} cannot be read, it is truncated or not a '
                'PyTorch checkpoint: '
                f'{_kind(local) or _first_line(str(error))}') from error


def _local_file(path: str, key: str, stack: ExitStack) -> str:
    """The file on this machine for a path or an address.

    Raises:
        FileNotFoundError, ValueError: See :func:`load`.
    """
    scheme, separator, rest = path.partition('://')
    if not separator or scheme == 'file':
        local = os.path.expanduser(rest if separator else path)
        if not os.path.isfile(local):
            raise FileNotFoundError(
                f'{key}={path!r}: ' +
                ('this is a folder; name a file in it'
                 if os.path.isdir(local) else
                 f'no such file (from {os.getcwd()})'))
        return local
    if scheme in _COLLECTIONS:
        known = _COLLECTIONS[scheme]()
        rest = get_deprecated_model_names().get(rest, rest)
        name = next((n for n in (rest, rest.lower()) if n in known), None)
        if name is None:
            near = difflib.get_close_matches(rest, known, n=3)
            raise ValueError(
                f'{key}={path!r}: {scheme} has no weights {rest!r}' +
                (f'; it has {", ".join(near)}, ...' if near else ''))
        place = known[name]
        return _local_file(place if '://' in place else os.path.join(
            _get_mmengine_home(), place), key, stack)
    if scheme in ('http', 'https'):
        try:
            # What an http address gives may have been changed on the way.
            return _download(f'https://{rest}')
        except (OSError, RuntimeError) as error:
            raise ValueError(f'{key}={path!r} cannot be fetched: '
                             f'{error}') from error
    try:
        return str(stack.enter_context(get_local_path(path)))
    except (ValueError, KeyError, ImportError) as error:
        raise ValueError(
            f'{key}={path!r}: {scheme}:// cannot be read here '
            f'({_first_line(str(error))}); give a file, https://, file://, '
            'torchvision://, open-mmlab:// or mmcls://') from error


def _kind(local: str) -> str:
    """What a file that is no checkpoint is, and what to do; ``''``: not
    known."""
    with open(local, 'rb') as file:
        head = file.read(64)
    for start, text in _OTHERS.items():
        if head.lstrip().lower().startswith(start):
            return text
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(local) as archive:
        if any('/code/' in name for name in archive.namelist()):
            return ('it is a TorchScript archive; save '
                    'torch.jit.load(FILE).state_dict() and use that file')
        if not any(name.endswith('data.pkl') for name in archive.namelist()):
            return 'it is a zip archive of other files; unpack it'
    return ''


def _load_pickle(local: str, map_location: Any, what: str) -> Any:
    """Read PyTorch's format. Objects of other packages, which are records
    beside the weights, are read as dicts.

    Raises:
        pickle.UnpicklingError: There are objects of other kinds.
    """
    types = _safe_types()
    try:
        with torch.serialization.safe_globals(types):
            return torch.load(local, map_location=map_location,
                              weights_only=True)
    except pickle.UnpicklingError as error:
        strangers = _records_of_others(local, types)
        if not strangers:
            raise
        # The classes are not imported: dicts stand for their objects.
        places = [(OrderedDict, name) for name in strangers]
        try:
            with torch.serialization.safe_globals([*types, *places]):
                content = torch.load(local, map_location=map_location,
                                     weights_only=True)
        except Exception:
            raise error from None
        if type(content) is OrderedDict and not content:
            raise  # the whole file is one object
        print_log(f'{what}: objects of {", ".join(strangers)} in it were not '
                  'read, only tensors and plain values', 'current',
                  logging.WARNING)
        return content


def _records_of_others(local: str, types: list[Any]) -> list[str]:
    """Names of classes in a file that are of packages other than Python's
    library, NumPy and PyTorch; empty if there are others, too."""
    try:
        with torch.serialization.safe_globals(types):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(local)
    except (AttributeError, RuntimeError, ValueError, OSError,
            pickle.UnpicklingError):
        return []
    return sorted(names) if not any(
        n.split('.')[0] in _NOT_RECORDS for n in names) else []


def latest_in(folder: str) -> str | None:
    """The last checkpoint of the run in a work directory; ``None``: there is
    none.

    MMEngine notes the whole path of the checkpoint, which is in another
    folder if the work directory was moved or copied since; then the file of
    the same name in this folder is meant.

    Args:
        folder: The work directory.
    """
    path = find_latest_checkpoint(folder)
    # A file that is gone is named, so that a message can name it.
    return path and (in_folder(path, folder) or path)


def in_folder(path: str, folder: str) -> str | None:
    """A path that a run has noted, if it is in the run's work directory;
    otherwise the file of the same name there, if there is one.

    Args:
        path: Path of a file.
        folder: The work directory.
    """
    root = os.path.realpath(folder)
    if os.path.realpath(path).startswith(root + os.sep):
        return path if os.path.exists(path) else None
    moved = os.path.join(folder, os.path.basename(path))
    return moved if os.path.exists(moved) else None


def last_checkpoint(path: str, key: str) -> str:
    """The last checkpoint of a run, if ``path`` is the run's work directory;
    otherwise ``path``.

    Args:
        path: A folder, a file, or an address.
        key: The config key that named it, for messages.

    Raises:
        FileNotFoundError: A folder without a checkpoint.
    """
    path = os.path.expanduser(path)
    if not os.path.isdir(path):
        return path
    found = latest_in(path)
    if not found:
        raise FileNotFoundError(
            f'{key}={path!r} is a folder without a checkpoint of a run; give '
            'the work_dir of a training, or a .pth file')
    return found


def _load_safetensors(local: str, what: str,
                      map_location: Any) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ValueError(f'{what} needs the package safetensors: pip install '
                         'safetensors') from error
    try:
        return load_file(local, device=str(map_location or 'cpu'))
    except SafetensorError as error:
        raise ValueError(f'{what} cannot be read, it is truncated or no '
                         f'safetensors file: {error}') from error


def save(obj: Any, path: str) -> None:
    """Write ``obj`` with ``torch.save``, completely or not at all."""
    def write(temporary: str) -> None:
        try:
            torch.save(obj, temporary)
        except RuntimeError as error:
            if 'unexpected pos' in str(error) or 'Writer' in str(error):
                # PyTorch's message for a full disk.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)
                              ) from error
            raise

    write_whole(path, write)


def check_out(path: str) -> None:
    """Check where weights are to be written.

    Args:
        path: The file.

    Raises:
        ValueError: A folder, a name of another format, or a file that is
            something else than weights alone.
    """
    if os.path.isdir(path):
        raise ValueError(f'{path!r} is a folder; give a file')
    if os.path.splitext(path)[1] not in _SUFFIXES:
        raise ValueError(
            f"{path!r} would be written in PyTorch's format, whatever its "
            f'name; end it in one of {", ".join(_SUFFIXES)}')
    if not os.path.exists(path):
        return
    try:
        content = load(path)
    except ValueError as error:
        raise ValueError(f'{path!r} exists and is no checkpoint; give '
                         'another name') from error
    if isinstance(content, dict) and not content.keys().isdisjoint(
            ('optimizer', 'message_hub')):
        raise ValueError(
            f'{path!r} is the checkpoint of a training, which could not be '
            'resumed without it; give another name')


def write_whole(path: str, write: Callable[[str], None]) -> None:
    """Write a file, completely or not at all.

    Args:
        path: The file; its folder is made if needed.
        write: Function that writes to a temporary name in the same folder.
    """
    directory = os.path.dirname(os.path.abspath(path))
    os.makedirs(directory, exist_ok=True)
    handle, temporary = tempfile.mkstemp(
        dir=directory, prefix='.' + os.path.basename(path) + '.')
    os.close(handle)
    try:
        write(temporary)
        # mkstemp gives access to the owner only
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(FileNotFoundError):
            os.remove(temporary)
        if isinstance(error, OSError) and error.errno is not None and \
                error.filename is None:
            # Names the file, which writing does not.
            raise OSError(error.errno, error.strerror, path) from error
        raise


def _download(url: str) -> str:
    """Fetch a URL into PyTorch's own cache of checkpoints."""
    folder = os.path.join(torch.hub.get_dir(), 'checkpoints')
    os.makedirs(folder, exist_ok=True)
    # Two teachers' files may both be called best.pth.
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    name = os.path.basename(url.split('?')[0])
    local = os.path.join(folder, f'{digest}-{name}')
    if not os.path.exists(local):
        torch.hub.download_url_to_file(url, local, _checksum(name))
    return local


def _checksum(name: str) -> str | None:
    """First digits of a file's SHA-256, which names of published weights end
    with (``resnet18-f37072fd.pth``)."""
    found = re.search(r'-([0-9a-f]{8,64})\.\w+$', name)
    # Eight decimal digits are more likely a date.
    return found[1] if found and not found[1].isdigit() else None


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:200] if text.strip() else 'empty'
