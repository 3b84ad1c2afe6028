"""The quick start, word for word, on a folder of images."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs/quick_start.md').read_text()


def epochs(count):
    """Options for two cores, and not a training."""
    return ['--cfg-options', f'train_cfg.max_epochs={count}', *(
        f'{loader}_dataloader.{option}' for loader in ('train', 'val', 'test')
        for option in ('num_workers=0', 'persistent_workers=False'))]


@pytest.fixture
def folder(tmp_path):
    """A folder of a user, with images of three classes."""
    rng = np.random.default_rng(0)
    for split, count in (('train', 3), ('val', 2)):
        for name in ('cat', 'dog', 'hen'):
            place = tmp_path / 'images' / split / name
            place.mkdir(parents=True)
            for i in range(count):
                cv2.imwrite(str(place / f'{i}.jpg'), rng.integers(
                    0, 256, (80, 90, 3), np.uint8))
    student = next(code for code in re.findall(
        r'```python\n(.*?)```', PAGE, re.DOTALL) if 'images/train' in code)
    (tmp_path / 'student.py').write_text(student)
    first, rest = student.split('\n', 1)
    # "A teacher's config differs in its first line only."
    (tmp_path / 'teacher.py').write_text(
        first.replace('resnet18', 'resnet34') + '\n' + rest)
    return tmp_path


def call(folder, tool, *args):
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools' / tool), *args], cwd=folder,
        capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.downstream
def test_the_page_on_own_images(folder):
    call(folder, 'train.py', 'teacher.py', *epochs(1))
    call(folder, 'train.py', 'student.py', '--distill', 'mtkd_rl',
         '--teacher', 'mine=teacher.py:work_dirs/teacher', *epochs(2))
    run = folder / 'work_dirs/student_mtkd_rl'
    exported = torch.load(run / 'student.pth', weights_only=True)
    assert exported['meta']['dataset_meta']['classes'] == ['cat', 'dog',
                                                           'hen']
    said = call(folder, 'test.py', 'student.py', str(run / 'student.pth'),
                *epochs(1))
    assert 'accuracy/top1' in said
    call(folder, 'export_student.py', str(run / 'epoch_2.pth'), 'r18.pth',
         '--to', 'mmdet')
    # A run that was moved goes on in its new place.
    shutil.move(run, folder / 'moved')
    call(folder, 'train.py', 'student.py', '--distill', 'mtkd_rl',
         '--teacher', 'mine=teacher.py:work_dirs/teacher', '--resume',
         '--work-dir', 'moved', *epochs(3))
    assert (folder / 'moved/epoch_3.pth').exists()
