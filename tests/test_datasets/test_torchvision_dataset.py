"""Torchvision's data sets, read from small files in the original formats."""

import hashlib
import struct

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from scipy.io import savemat

from mmkd_rl.datasets import ClassSubset, TorchVisionDataset
from mmkd_rl.registry import DATASETS

PACK = [dict(type='mmpretrain.PackInputs')]
LETTERS = tuple('abcdefghijklmnopqrstuvwxyz')


def rng():
    return np.random.default_rng(0)


def write_idx(path, array):
    """Write a file in the format of MNIST: magic number, sizes, bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack('>HBB', 0, 8, array.ndim)
    sizes = struct.pack(f'>{array.ndim}I', *array.shape)
    path.write_bytes(head + sizes + array.astype(np.uint8).tobytes())


def images(n, *shape):
    return rng().integers(0, 256, (n, *shape)).astype(np.uint8)


def write_mnist(root, name='MNIST'):
    for prefix, n in (('train', 12), ('t10k', 5)):
        raw = root / name / 'raw'
        write_idx(raw / f'{prefix}-images-idx3-ubyte', images(n, 28, 28))
        write_idx(raw / f'{prefix}-labels-idx1-ubyte', np.arange(n) % 10)


def write_emnist(root, split, labels):
    upright = images(len(labels), 28, 28)
    for part in ('train', 'test'):
        stem = f'emnist-{split}-{part}'
        raw = root / 'EMNIST' / 'raw'
        # EMNIST's files have transposed images
        write_idx(raw / f'{stem}-images-idx3-ubyte',
                  upright.transpose(0, 2, 1))
        write_idx(raw / f'{stem}-labels-idx1-ubyte', labels)
    return upright


def own_md5(monkeypatch, owner, name, folder):
    """Replace torchvision's checksums by those of the files written here."""
    entries = getattr(owner, name)

    def own(entry):
        *rest, file, _ = entry
        return [*rest, file,
                hashlib.md5((folder / file).read_bytes()).hexdigest()]

    monkeypatch.setattr(
        owner, name,
        {k: own(e) for k, e in entries.items() if (folder / e[1]).exists()}
        if isinstance(entries, dict) else [own(e) for e in entries])


def write_svhn(root, monkeypatch):
    pixels = images(11, 32, 32, 3)
    labels = np.arange(1, 12) % 10
    for split in ('train', 'test'):
        savemat(
            root / f'{split}_32x32.mat',
            dict(
                X=pixels.transpose(1, 2, 3, 0),
                # SVHN's files have the label 10 for zero
                y=np.where(labels == 0, 10, labels)[:, None]))
    own_md5(monkeypatch, torchvision.datasets.SVHN, 'split_list', root)
    return pixels, labels


def write_stl10(root, monkeypatch):
    folder = root / 'stl10_binary'
    folder.mkdir()
    pixels = images(4, 96, 96, 3)
    # channels, columns, rows
    raw = pixels.transpose(0, 3, 2, 1).tobytes()
    for split in ('train', 'test'):
        (folder / f'{split}_X.bin').write_bytes(raw)
        (folder / f'{split}_y.bin').write_bytes(bytes([1, 10, 3, 2]))
    (folder / 'unlabeled_X.bin').write_bytes(raw)
    (folder / 'class_names.txt').write_text(
        'airplane\nbird\ncar\ncat\ndeer\ndog\nhorse\nmonkey\nship\ntruck\n')
    for name in ('train_list', 'test_list'):
        own_md5(monkeypatch, torchvision.datasets.STL10, name, folder)
    return pixels


def labels_of(data):
    return [data[i]['gt_label'] for i in range(len(data))]


def test_mnist(tmp_path):
    write_mnist(tmp_path)
    data = DATASETS.build(
        dict(
            type='mmkd_rl.TorchVisionDataset',
            name='MNIST',
            data_root=str(tmp_path)))
    assert len(data) == 12
    assert labels_of(data) == data.get_gt_labels().tolist() == \
        [*range(10), 0, 1]
    assert data.get_cat_ids(11) == [1]
    for i, pixels in enumerate(images(12, 28, 28)):
        assert np.array_equal(data[i]['img'], pixels)
    assert data.metainfo['classes'][3] == '3 - three'
    assert 'MNIST' in repr(data)
    # torchvision's `train` follows test_mode by default
    root = dict(data_root=str(tmp_path))
    assert len(TorchVisionDataset('MNIST', test_mode=True, **root)) == 5
    assert len(
        TorchVisionDataset('MNIST', test_mode=True, train=True, **root)) == 12


def test_a_pipeline_and_a_colour_image(tmp_path):
    write_mnist(tmp_path)
    root = dict(data_root=str(tmp_path))
    augment = [
        dict(type='mmpretrain.RandomCrop', crop_size=28, padding=2),
        dict(type='mmpretrain.RandomFlip', prob=.5, direction='horizontal')
    ]
    grey = TorchVisionDataset('MNIST', pipeline=augment + PACK, **root)[3]
    assert grey['inputs'].shape == (1, 28, 28)
    assert grey['inputs'].dtype == torch.uint8
    assert grey['data_samples'].gt_label.item() == 3
    colour = TorchVisionDataset(
        'MNIST', pipeline=PACK, channels=3, **root)[3]['inputs']
    assert np.array_equal(colour, images(12, 28, 28)[[3, 3, 3]])


def test_emnist_stands_upright_and_letters_start_at_zero(tmp_path):
    upright = write_emnist(tmp_path, 'letters', np.array([1, 26, 2, 3]))
    data = TorchVisionDataset(
        'EMNIST', str(tmp_path), split='letters', test_mode=True)
    assert data.source.train is False
    assert labels_of(data) == [0, 25, 1, 2]
    assert data.metainfo['classes'] == LETTERS
    for i, pixels in enumerate(upright):
        assert np.array_equal(data[i]['img'], pixels)
        assert data[i]['img'].flags.c_contiguous


def test_emnist_digits_are_left_at_their_labels(tmp_path):
    write_emnist(tmp_path, 'digits', np.array([0, 9, 4]))
    data = TorchVisionDataset('EMNIST', str(tmp_path), split='digits')
    assert labels_of(data) == [0, 9, 4]
    assert data.metainfo['classes'] == tuple('0123456789')


def test_half_of_the_letters(tmp_path):
    upright = write_emnist(tmp_path, 'letters', np.array([20, 1, 13, 14]))
    emnist = dict(
        type='mmkd_rl.TorchVisionDataset',
        name='EMNIST',
        split='letters',
        data_root=str(tmp_path),
        lazy_init=True)
    half = ClassSubset(emnist, 'first-half')
    assert half.metainfo['classes'] == LETTERS[:13]
    assert [half[i]['gt_label'] for i in range(len(half))] == [0, 12]
    assert np.array_equal(half[1]['img'], upright[2])


def test_svhn(tmp_path, monkeypatch):
    pixels, labels = write_svhn(tmp_path, monkeypatch)
    data = TorchVisionDataset('SVHN', str(tmp_path))
    assert labels_of(data) == labels.tolist()
    # RGB, as it is in the file
    for i in range(11):
        assert np.array_equal(data[i]['img'], pixels[i])
    assert data.metainfo['classes'] == tuple('0123456789')
    test = TorchVisionDataset('SVHN', str(tmp_path), test_mode=True)
    assert test.source.split == 'test'
    grey = TorchVisionDataset('SVHN', str(tmp_path), channels=1)
    assert np.array_equal(
        grey[0]['img'], np.array(Image.fromarray(pixels[0]).convert('L')))


def test_stl10(tmp_path, monkeypatch):
    pixels = write_stl10(tmp_path, monkeypatch)
    data = TorchVisionDataset('STL10', str(tmp_path), pipeline=PACK)
    assert [data[i]['data_samples'].gt_label.item()
            for i in range(4)] == [0, 9, 2, 1]
    assert np.array_equal(data[2]['inputs'], pixels[2].transpose(2, 0, 1))
    assert data.metainfo['classes'][:2] == ('airplane', 'bird')
    for split in ('unlabeled', 'train+unlabeled'):
        with pytest.raises(ValueError, match='samples without a class'):
            TorchVisionDataset('STL10', str(tmp_path), split=split)


def test_images_that_stay_on_disk(tmp_path):
    for label in ('a', 'b'):
        for i in range(2):
            path = tmp_path / '2750' / label / f'{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images(1, 6, 6, 3)[0] // (i + 1)).save(path)
    root = tmp_path / '2750'
    data = TorchVisionDataset('ImageFolder', str(root))
    assert labels_of(data) == [0, 0, 1, 1]
    assert data.metainfo['classes'] == ('a', 'b')
    assert np.array_equal(data[3]['img'], images(1, 6, 6, 3)[0] // 2)


def test_labels_that_only_the_samples_know():
    data = TorchVisionDataset(
        'FakeData', size=5, image_size=(3, 4, 4), num_classes=3)
    assert labels_of(data) == [int(y) for _, y in data.source]
    assert data[0]['img'].shape == (4, 4, 3)


def test_subsets_share_the_images(tmp_path):
    write_mnist(tmp_path)
    whole = TorchVisionDataset('MNIST', str(tmp_path), indices=[3, 5, 7])
    assert labels_of(whole) == [3, 5, 7]
    part = whole.get_subset([2, 0])
    assert part.source is whole.source
    assert labels_of(part) == [7, 3]
    assert np.array_equal(part[0]['img'], images(12, 28, 28)[7])


def test_lazy(tmp_path):
    write_mnist(tmp_path)
    data = TorchVisionDataset('MNIST', str(tmp_path), lazy_init=True)
    assert data.source is None
    assert data.get_cat_ids(1) == [1]
    assert len(data) == 12


def test_own_class_names(tmp_path):
    write_mnist(tmp_path)
    names = [f'n{i}' for i in range(10)]
    root = str(tmp_path)
    data = TorchVisionDataset('MNIST', root, classes=names)
    assert data.metainfo['classes'] == tuple(names)
    with pytest.raises(ValueError, match='classes has 9 names.*up to 9'):
        TorchVisionDataset('MNIST', root, classes=names[:9])


@pytest.mark.parametrize('name, wanted', [
    ('MNIST', 'MNIST/raw/train-images-idx3-ubyte'),
    ('EMNIST', 'EMNIST/raw/emnist-SPLIT-train-images'),
    ('SVHN', 'train_32x32.mat'),
    ('STL10', 'stl10_binary/'),
    ('CIFAR10', 'cifar-10-batches-py/'),
    ('Flowers102', 'what torchvision documents'),
])
def test_missing_files_are_named(tmp_path, name, wanted):
    options = dict(split='letters') if name == 'EMNIST' else {}
    with pytest.raises(FileNotFoundError) as error:
        TorchVisionDataset(name, str(tmp_path), **options)
    message = str(error.value)
    assert f'name={name!r}' in message and wanted in message
    assert str(tmp_path) in message
    assert 'train_dataloader.dataset.data_root=DIR' in message
    assert 'download=True' in message


def test_other_files_than_the_published_are_refused(tmp_path, monkeypatch):
    write_svhn(tmp_path, monkeypatch)
    path = tmp_path / 'test_32x32.mat'
    path.write_bytes(path.read_bytes() + b'!')
    assert len(TorchVisionDataset('SVHN', str(tmp_path))) == 11
    with pytest.raises(FileNotFoundError, match='not the original files'):
        TorchVisionDataset('SVHN', str(tmp_path), test_mode=True)


def test_download_is_torchvisions(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        torchvision.datasets.MNIST, 'download',
        lambda self: asked.append(1) or write_mnist(tmp_path))
    assert len(
        TorchVisionDataset('MNIST', str(tmp_path), download=True)) == 12
    assert asked == [1]


@pytest.mark.parametrize('kwargs, kind, message', [
    (dict(name='SVNH'), ValueError, "name must be .* 'SVNH'.*'SVHN'"),
    (dict(name='wrap_dataset_for_transforms_v2'), ValueError, 'name must be'),
    (dict(name='MNIST'), ValueError, 'needs data_root'),
    (dict(name='MNIST', data_root='x', channels=2), ValueError,
     'channels must be one of 1, 3 or None, got 2'),
    (dict(name='MNIST', data_root='x', split='train'), TypeError,
     r"MNIST has no option 'split'; it takes \['train'\]"),
    (dict(name='MNIST', data_root='x', transform=1), TypeError,
     "has no option 'transform'"),
    (dict(name='EMNIST', data_root='x'), TypeError, "'EMNIST'.*'split'"),
    (dict(name='EMNIST', data_root='x', split='letter'), ValueError,
     "'EMNIST' with .*'letter'.*letters"),
    (dict(name='SVHN', data_root='x', split='valid'), ValueError,
     "'SVHN' with .*'valid'.*extra"),
])
def test_bad_arguments_are_named(kwargs, kind, message):
    with pytest.raises(kind, match=message):
        TorchVisionDataset(**kwargs)


def test_only_classes_will_do(tmp_path):
    (tmp_path / 'a.json').write_text(
        '{"images": [{"id": 1, "file_name": "x.png"}], "annotations": []}')
    Image.fromarray(images(1, 4, 4, 3)[0]).save(tmp_path / 'x.png')
    with pytest.raises(ValueError, match='not one class for each image'):
        TorchVisionDataset(
            'CocoDetection', str(tmp_path),
            annFile=str(tmp_path / 'a.json'))
