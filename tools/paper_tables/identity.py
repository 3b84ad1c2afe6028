"""Identity of a run: hash of its config and its teachers' weights."""

from __future__ import annotations

import hashlib
import json

from mmengine.config import Config

from mmkd_rl.utils import checkpoint_io


def config_identity(cfg: Config, teachers: list[str]) -> str:
    """Hash of a training without its seed, folders and data loader workers.

    Args:
        cfg: Complete config of the training.
        teachers: Identities of the teachers' weights.
    """
    content = cfg.to_dict()
    for key in ('work_dir', 'randomness', 'resume', 'load_from', 'log_level',
                'data_root'):
        content.pop(key, None)
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for name in ('num_workers', 'persistent_workers', 'pin_memory'):
            content.get(key, {}).pop(name, None)
    text = json.dumps([content, teachers], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_identity(path: str) -> str:
    """Hash of a file's content; a URL is returned as it is."""
    if '://' in path:
        return path
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_weights(path: str, key: str) -> None:
    """Check before the training whether a file contains weights.

    Args:
        path: Path of the checkpoint.
        key: Option of the user, for the message.

    Raises:
        ValueError: The file cannot be read, or it contains no weights.
    """
    content = checkpoint_io.load(path, key)
    if not isinstance(content, dict) or not content:
        raise ValueError(f'{key}={path!r} holds no weights: it is a '
                         f'{type(content).__name__}, not a filled dict')
