"""Checkpoints as other trainers write them: every reader takes the same
weights from the same file, or all refuse it."""

import argparse
import importlib.util
import pathlib
import pickle
import re
import types
import zipfile

import numpy as np
import pytest
import torch
from mmengine.model import initialize
from torch import nn

from mmkd_rl.export import export_student
from mmkd_rl.export.trained import read_trained
from mmkd_rl.registry import MODELS
from mmkd_rl.teachers import load_weights, read_checkpoint
from mmkd_rl.utils import checkpoint_io
from mmkd_rl.utils.load_report import fitted, watch_loading
from mmkd_rl.utils.patches import patch_mmengine
from tests.toy import classifier


@pytest.fixture(autouse=True)
def patched():
    patch_mmengine()


def network():
    return MODELS.build(classifier(hidden=4))


def weights(value=None):
    """Weights of the network, random or all of one value."""
    torch.manual_seed(0)
    return {n: torch.randn(t.shape) if value is None else
            torch.full(t.shape, float(value))
            for n, t in network().state_dict().items()}


# ---- the readers: each gives the first convolution's weights -------------


def as_teacher(path):
    net = network()
    load_weights(net, read_checkpoint(path, 'key'), path, 'key')
    return net.state_dict()


def as_load_from(path):
    """What train.py (load_from) and test.py do."""
    net = network()
    own = fitted(checkpoint_io.load(path), net, path)
    watch_loading(net, 'checkpoint', path)
    net.load_state_dict(own, strict=False)
    return net.state_dict()


def as_export(path):
    return export_student(checkpoint_io.load(path))['state_dict']


def as_backbone(path):
    return {f'backbone.{n}': t
            for n, t in read_trained(path, 'key').weights.items()}


def as_init_cfg(path):
    net = network()
    initialize(net, dict(type='Pretrained', checkpoint=path))
    return net.state_dict()


def as_init_cfg_with_prefix(path):
    net = network()
    initialize(net.backbone, dict(type='Pretrained', checkpoint=path,
                                  prefix='backbone.'))
    return {n: t for n, t in net.state_dict().items()
            if n.startswith('backbone')}


READERS = [as_teacher, as_load_from, as_export, as_backbone, as_init_cfg,
           as_init_cfg_with_prefix]


def saved(content, path):
    torch.save(content, path)
    return str(path)


def under(prefix, state=None):
    return {prefix + n: t for n, t in (state or weights()).items()}


def inside(segment):
    """A wrapper around the backbone alone."""
    return {n.replace('backbone.', f'backbone.{segment}.'): t
            for n, t in weights().items()}


def optimizer():
    net = network()
    sgd = torch.optim.AdamW(net.parameters())
    net.head.fc.weight.sum().backward()
    sgd.step()
    return sgd.state_dict()


ARGS = argparse.Namespace(lr=0.1, out=pathlib.Path('a/b'), nested=dict(
    inner=argparse.Namespace(x=1)))
WHOLE = {
    'plain': weights,
    'state_dict': lambda: dict(state_dict=weights()),
    'model': lambda: dict(model=weights(), epoch=3),
    'net': lambda: dict(net=weights(), acc=93.2, epoch=np.int64(4)),
    'model_state_dict': lambda: dict(
        model_state_dict=weights(), optimizer_state_dict=optimizer()),
    'two keys deep': lambda: dict(checkpoint=dict(state_dict=weights())),
    'with other values among the weights':
        lambda: dict(weights(), epoch=3, name='x', best=None),
    'an optimizer beside': lambda: dict(
        model=weights(), optimizer=optimizer()),
    'DataParallel': lambda: dict(state_dict=under('module.')),
    'compiled': lambda: under('_orig_mod.'),
    'compiled and DataParallel': lambda: under('module._orig_mod.'),
    'compiled backbone': lambda: inside('_orig_mod'),
    'wrapped backbone': lambda: inside('_fsdp_wrapped_module'),
    'Lightning': lambda: dict(
        state_dict=under('model.'), epoch=2, hyper_parameters=dict(lr=1.),
        **{'pytorch-lightning_version': '2.1'}),
    'another prefix': lambda: under('detector.student_net.'),
    'with a loss beside the model': lambda: dict(
        state_dict={**under('model.'), 'criterion.weight': torch.ones(5)}),
    'timm, averaged beside raw': lambda: dict(
        state_dict=weights(7), state_dict_ema=weights(), args=ARGS),
    'DeiT, averaged beside raw': lambda: dict(
        model=weights(7), model_ema=weights(), args=ARGS),
    'averaged, two keys deep': lambda: dict(
        model=weights(7), ema=dict(module=weights(), updates=9)),
    'averaged below a prefix': lambda: dict(
        state_dict={**under('model.', weights(7)), **under('ema_model.')}),
    'mean teacher': lambda: dict(state_dict={
        **under('student.', weights(7)), **under('teacher.')}),
    'AveragedModel': lambda: dict(
        under('module.'), n_averaged=torch.tensor(3)),
    'MMEngine, raw beside averaged': lambda: dict(
        state_dict=weights(), message_hub={}, meta={},
        agent=dict(policy=weights(7)),
        ema_state_dict=dict(under('module.', weights(7)),
                            steps=torch.tensor(4))),
    "a profiler's counters": lambda: dict(state_dict=dict(
        weights(), **{'backbone.total_ops': torch.zeros(1).double(),
                      'head.fc.total_params': torch.zeros(1).double()})),
    'an old averaging hook': lambda: dict(state_dict=dict(
        weights(), **{'ema_' + n.replace('.', '_'): t
                      for n, t in weights(7).items()})),
    'half precision': lambda: {n: t.half() for n, t in weights().items()},
    'Namespace': lambda: dict(state_dict=weights(), args=ARGS),
    'arrays in the records': lambda: dict(
        state_dict=weights(), a=np.zeros(2, np.float16),
        b=np.zeros((2, 2), np.int8), c=np.zeros(2, np.uint8),
        d=np.zeros(2, bool), e=np.array(['x', 'yz']), f=np.float16(1),
        g=np.array([{'a': 1}, None], dtype=object),
        h=np.array(['2026-01-01'], 'datetime64[D]'), i=np.bool_(True)),
    'arrays for weights': lambda: dict(
        state_dict={n: t.numpy() for n, t in weights().items()}),
    'parameters for weights': lambda: {
        n: nn.Parameter(t) for n, t in weights().items()},
}


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize('kind', WHOLE)
def test_every_reader_takes_the_same_weights(kind, reader, tmp_path):
    path = saved(WHOLE[kind](), tmp_path / 'found.pth')
    got = reader(path)
    truth = weights()
    tolerance = 2e-3 if kind == 'half precision' else 0.
    names = [n for n in truth if n.startswith('backbone')] \
        if reader in (as_backbone, as_init_cfg_with_prefix) else list(truth)
    assert names
    for name in names:
        torch.testing.assert_close(got[name].float(), truth[name],
                                   atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize('reader', READERS)
def test_records_of_a_class_that_is_not_installed(reader, tmp_path):
    """Options as other packages keep them; the class is not imported."""
    module = types.ModuleType('absent_package')

    class Options(dict):
        pass

    class Record:
        pass

    for kind in (Options, Record):
        kind.__module__, kind.__qualname__ = 'absent_package', kind.__name__
        setattr(module, kind.__name__, kind)
    record = Record()
    record.lr = 0.1
    import sys
    sys.modules['absent_package'] = module
    try:
        path = saved(dict(state_dict=weights(), cfg=Options(a=1),
                          record=record), tmp_path / 'found.pth')
    finally:
        del sys.modules['absent_package']
    got = reader(path)
    name = 'backbone.conv.weight'
    assert torch.equal(got[name], weights()[name])


@pytest.mark.parametrize('reader', READERS)
def test_a_file_of_the_other_numpy(reader, tmp_path):
    """NumPy 1 and NumPy 2 name the same functions differently."""
    source = saved(dict(state_dict=weights(), x=np.ones(3),
                        y=np.float64(1.5)), tmp_path / 'two.pth')
    ours, other = b'numpy._core.multiarray', b'numpy.core.multiarray'
    with zipfile.ZipFile(source) as a, \
            zipfile.ZipFile(tmp_path / 'one.pth', 'w') as b:
        pickled = [i for i in a.namelist() if i.endswith('data.pkl')]
        content = a.read(pickled[0])
        if ours not in content:
            ours, other = other, ours
        assert ours in content
        for item in a.infolist():
            b.writestr(item, a.read(item).replace(ours, other))
    got = reader(str(tmp_path / 'one.pth'))
    name = 'backbone.conv.weight'
    assert torch.equal(got[name], weights()[name])


@pytest.mark.parametrize('reader', READERS)
def test_safetensors_and_file_addresses(reader, tmp_path):
    from safetensors.torch import save_file
    path = tmp_path / 'found.safetensors'
    save_file(weights(), path)
    for address in (str(path), f'file://{path}'):
        got = reader(address)
        assert torch.equal(got['backbone.conv.weight'],
                           weights()['backbone.conv.weight'])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match='safetensors'):
        reader(str(path))


FOREIGN = {
    'timm': lambda: dict(state_dict={
        f'blocks.{i}.attn.qkv.weight': torch.ones(4, 4) for i in range(9)}),
    'torchvision': lambda: {
        'conv1.weight': torch.ones(4, 3, 4, 4), 'fc.weight': torch.ones(5, 8),
        'fc.bias': torch.ones(5), 'layer1.0.conv1.weight': torch.ones(2, 2)},
}
REFUSED = {
    'no weights': lambda: dict(epoch=3),
    'a list': lambda: [1, 2],
    'one tensor': lambda: torch.ones(3),
    'a whole model': lambda: types.SimpleNamespace,
}


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize('kind', FOREIGN)
def test_a_file_of_another_network_is_refused(kind, reader, tmp_path):
    path = saved(FOREIGN[kind](), tmp_path / 'found.pth')
    with pytest.raises(ValueError, match='backbone') as error:
        reader(path)
    assert reader in (as_export, as_init_cfg_with_prefix) or \
        'found.pth' in str(error.value)


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize('kind', REFUSED)
def test_a_file_without_weights_is_refused(kind, reader, tmp_path):
    path = saved(REFUSED[kind](), tmp_path / 'found.pth')
    with pytest.raises(ValueError, match='weights|state_dict|tensors'):
        reader(path)


@pytest.mark.parametrize('reader', [as_teacher, as_load_from, as_init_cfg])
def test_two_sets_that_fit_are_not_guessed(reader, tmp_path):
    path = saved({**under('left.'), **under('right.', weights(7))},
                 tmp_path / 'found.pth')
    with pytest.raises(ValueError, match="'left.' and 'right.'"):
        reader(path)


@pytest.mark.parametrize('reader', [as_teacher, as_load_from, as_init_cfg,
                                    as_init_cfg_with_prefix])
def test_weights_that_are_no_numbers(reader, tmp_path):
    state = weights()
    state['backbone.conv.weight'][0] = torch.inf
    with pytest.raises(ValueError, match='1 weights: backbone.conv|conv.weig'):
        reader(saved(state, tmp_path / 'found.pth'))


@pytest.mark.parametrize('reader, text', [
    (as_teacher, '1 left over: backbone.second'),
    (as_load_from, 'backbone.second.*more weights')])
def test_a_deeper_network_is_not_cut_to_a_shallow_one(reader, text, tmp_path):
    """All weights of the shallow one are in the file, and it would compute
    something else."""
    path = saved(dict(weights(), **{
        'backbone.second.weight': torch.ones(8, 8)}), tmp_path / 'found.pth')
    with pytest.raises(ValueError, match=text):
        reader(path)


@pytest.mark.parametrize('address, message', [
    ('torchvision://resnet19', 'resnet18'),
    ('open-mmlab://nothing/such', 'no weights'),
    ('gopher://a/b.pth', 'gopher:// cannot be read'),
    ('file:///no/such.pth', 'no such file'),
    ('/tmp', 'this is a folder'),
])
def test_addresses_that_cannot_be_read(address, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        checkpoint_io.load(address)


@pytest.mark.parametrize('address, url', [
    ('torchvision://resnet18', 'resnet18-f37072fd.pth'),
    ('open-mmlab://detectron2/resnet50_caffe', 'resnet50_msra'),
    ('https://host/a-deadbeef.pth', 'a-deadbeef.pth'),
    ('http://example.org/a.pth', 'https://example.org/a.pth'),
    ('mmcls://mobilenet_v2', 'mobilenet_v2'),
    ('open-mmlab://detectron/resnet50_caffe', 'resnet50_caffe'),
])
def test_names_of_collections_lead_to_https(address, url, monkeypatch,
                                            tmp_path):
    path = saved(weights(), tmp_path / 'a.pth')
    asked = []
    monkeypatch.setattr(checkpoint_io, '_download',
                        lambda u: asked.append(u) or path)
    assert checkpoint_io.load(address)
    assert asked[0].startswith('https://')
    assert url in asked[0]


@pytest.mark.parametrize('package', ['mmdet', 'mmseg', 'mmpretrain'])
def test_every_name_in_the_installed_configs_is_known(package, monkeypatch,
                                                      tmp_path):
    path = saved(weights(), tmp_path / 'a.pth')
    monkeypatch.setattr(checkpoint_io, '_download', lambda url: path)
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f'{package} is not installed')
    folder = pathlib.Path(spec.submodule_search_locations[0], '.mim/configs')
    names = {name for file in folder.rglob('*.py') for name in re.findall(
        r"'((?:mmcls|open-mmlab|openmmlab|torchvision)://[^']*)'",
        file.read_text())}
    assert names
    for name in sorted(names):
        assert checkpoint_io.load(name)


@pytest.mark.parametrize('name, digits', [
    ('resnet18-f37072fd.pth', 'f37072fd'),
    ('resnet18_8xb32_in1k_20210831-fbbb1da6.pth', 'fbbb1da6'),
    ('model-20210831.pth', None), ('best.pth', None)])
def test_checksums_in_names(name, digits):
    assert checkpoint_io._checksum(name) == digits


@pytest.mark.parametrize('content, text', [
    (b'version https://git-lfs.github.com/spec/v1\noid', 'git lfs pull'),
    (b'<!DOCTYPE html><html>', 'download has failed'),
    (b'\x1f\x8b\x08\0abc', 'gzip'),
    (pickle.dumps({'a': 1}, 4), 'a pickle without tensors'),
    (b'', 'empty')])
def test_files_of_other_kinds(content, text, tmp_path):
    path = tmp_path / 'a.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=text):
        checkpoint_io.load(str(path))


def test_torchscript_and_other_archives(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='TorchScript.*state_dict'):
        checkpoint_io.load(str(tmp_path / 'a.pth'))
    with zipfile.ZipFile(tmp_path / 'b.pth', 'w') as archive:
        archive.writestr('model.onnx', b'x')
    with pytest.raises(ValueError, match='zip archive of other files'):
        checkpoint_io.load(str(tmp_path / 'b.pth'))
