"""Read checkpoints without running code, and write them atomically.

Reading uses PyTorch's ``weights_only`` loader, which runs no pickled code,
with the few harmless types allowed that MMEngine writes into checkpoints.
Files are written to a temporary name first, so that a file under its final
name is always complete.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import pickle
import re
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from mmengine.fileio import get_local_path
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.runner import find_latest_checkpoint

#: Modules of the names in pickled arrays, in NumPy 2 and NumPy 1.
_NUMPY = ('numpy._core.multiarray', 'numpy.core.multiarray')


@lru_cache
def _safe_types() -> list[Any]:
    """Types in MMEngine's checkpoints that cannot run code when read."""
    core = importlib.import_module(_NUMPY[np.__version__.startswith('1.')])
    arrays = [(getattr(core, name), f'{module}.{name}')
              for name in ('_reconstruct', 'scalar') for module in _NUMPY]
    dtypes = {type(np.dtype(t)) for t in '?bBhHiIlLqQefdFD'}
    return [
        HistoryBuffer, slice, np.ndarray, np.dtype, *arrays, *dtypes,
        (_statistic, 'builtins.getattr')
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
        path: A file, a URL, or a path for MMEngine's file clients.
        key: Config key of the path, for messages.
        map_location: Device of the tensors, see ``torch.load``.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is truncated, no checkpoint, or has more than
            tensors and plain values.
    """
    with ExitStack() as stack:
        if path.startswith(('http://', 'https://')):
            try:
                local = _download(path)
            except OSError as error:
                raise ValueError(f'{key}={path!r} cannot be fetched: '
                                 f'{error}') from error
        else:
            path = os.path.expanduser(path)
            if '://' not in path and not os.path.isfile(path):
                raise FileNotFoundError(
                    f'{key}={path!r}: no such file (from {os.getcwd()})')
            local = str(stack.enter_context(get_local_path(path)))
        if local.endswith('.safetensors'):
            return _load_safetensors(local, f'{key}={path!r}', map_location)
        try:
            with torch.serialization.safe_globals(_safe_types()):
                return torch.load(local, map_location=map_location,
                                  weights_only=True)
        except pickle.UnpicklingError as error:
            # torch raises this for code as well as for garbage.
            reason = str(error).split('WeightsUnpickler error:')[-1]
            culprit = re.search(r'GLOBAL (\S+)', reason)
            if culprit:
                raise ValueError(
                    f'{key}={path!r} is a pickle with more than tensors in '
                    f'it ({culprit[1]}); it was not run. Save its '
                    'state_dict alone and use that file') from error
            raise ValueError(f'{key}={path!r} is not a PyTorch checkpoint: '
                             f'{_first_line(reason)}') from error
        except (RuntimeError, EOFError, OSError, LookupError, ValueError,
                AttributeError, TypeError) as error:
            # torch's reader raises any of these for files of other kinds.
            raise ValueError(
                f'{key}={path!r} cannot be read, it is truncated or not a '
                f'PyTorch checkpoint: {_first_line(str(error))}') from error


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
    found = find_latest_checkpoint(path)
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
    write_whole(path, lambda temporary: torch.save(obj, temporary))


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
    except BaseException:
        with suppress(FileNotFoundError):
            os.remove(temporary)
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
        torch.hub.download_url_to_file(url, local)
    return local


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:200] if text.strip() else 'empty'
