"""The converter of CIFAR-100, on three images instead of 60,000."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PATH = Path(__file__).parents[1] / 'tools/dataset_converters/cifar100.py'


class Original(list):
    """Data set with the attributes of torchvision's CIFAR100."""

    classes = ('apple', 'bear')

    def __init__(self, root, train, download):
        if 'nothing' in root and not download:
            raise RuntimeError('Dataset not found or corrupted.')
        rng = np.random.default_rng(int(train))
        super().__init__((Image.fromarray(
            rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)), label)
                         for label in (0, 1, 0))


@pytest.fixture
def convert(monkeypatch):
    spec = importlib.util.spec_from_file_location('cifar100', PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'CIFAR100', Original)
    return module.convert


def test_pixels_survive(convert, tmp_path):
    out = tmp_path / 'cifar100'
    assert convert('x', str(out)) == 6
    assert not (tmp_path / 'cifar100.partial').exists()
    written = np.asarray(Image.open(out / 'test' / 'apple' / '0001.png'))
    original = Original('x', False, False)[2][0]
    assert np.array_equal(written, np.asarray(original))
    assert len(list(out.rglob('*.png'))) == 6


def test_bad_input(convert, tmp_path):
    with pytest.raises(FileNotFoundError, match="'nothing'.*--download"):
        convert('nothing', str(tmp_path / 'out'))
    assert not (tmp_path / 'out').exists()
    with pytest.raises(FileExistsError, match='exists'):
        convert('x', str(tmp_path))
