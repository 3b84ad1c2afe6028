"""Loads a network with its weights from a user's options, or raises a clear
message."""

import os
import pickle

import pytest
import torch
import torchvision

from mmkd_rl.registry import MODELS
from mmkd_rl.teachers import load_model_config, load_weights, read_checkpoint
from mmkd_rl.utils import checkpoint_io
from tests.toy import CLASSES, classifier, distiller, toy_teachers


@pytest.fixture
def teachers(tmp_path):
    return toy_teachers(tmp_path, count=1)


def build(teachers, **changes):
    return MODELS.build(distiller([{**teachers[0], **changes}]))


class Payload:
    """Object whose pickle creates a file if it is loaded without checks."""

    def __init__(self, path, by='open'):
        self.path, self.by = path, by

    def __reduce__(self):
        return (open, (str(self.path), 'w')) if self.by == 'open' else \
            (os.system, (f'touch {self.path}', ))


def test_a_missing_checkpoint(teachers):
    with pytest.raises(FileNotFoundError,
                       match="teacher 't0': checkpoint='absent.pth'"):
        build(teachers, checkpoint='absent.pth')


def test_all_missing_checkpoints_are_named_at_once(
        teachers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'own.py').write_text(f'model = {classifier()!r}')
    t14 = 'mmkd_rl::cifar100/teachers/resnet14_1xb128-3e_cifar100.py'
    r50 = 'mmkd_rl::imagenet/teachers/resnet50_imagenet.py'
    run = 'work_dirs/resnet14_1xb128-3e_cifar100/epoch_3.pth'
    with pytest.raises(FileNotFoundError) as error:
        MODELS.build(distiller([
            teachers[0],
            dict(name='a', config=t14, checkpoint=run),
            dict(name='b', config='own.py', checkpoint='runs/b/epoch_1.pth'),
            dict(name='c', config=r50, checkpoint='checkpoints/resnet50.pth'),
            dict(name='d', config=classifier(), checkpoint='d.pth'),
            dict(name='e', config=classifier(), checkpoint='untrained')
        ]))
    *lines, total, reproduce = str(error.value).splitlines()
    assert lines == [
        f"teacher 'a': checkpoint={run!r}: no such file; train it: python "
        f'tools/train.py {t14}',
        "teacher 'b': checkpoint='runs/b/epoch_1.pth': no such file; train "
        'it: python tools/train.py own.py --work-dir runs/b',
        "teacher 'c': checkpoint='checkpoints/resnet50.pth': no such file; "
        'the head of configs/imagenet/teachers/resnet50_imagenet.py says '
        'where its weights are',
        "teacher 'd': checkpoint='d.pth': no such file",
    ]
    assert total.startswith('4 of 6 teachers have no checkpoint file')
    assert total.endswith(
        '--cfg-options model.teachers.1.checkpoint=FILE '
        'model.teachers.2.checkpoint=FILE model.teachers.3.checkpoint=FILE '
        'model.teachers.4.checkpoint=FILE')
    assert reproduce.startswith('tools/reproduce.py trains')


def test_torchvisions_names_are_known(tmp_path):
    network = torchvision.models.resnet18(num_classes=CLASSES)
    torch.save(network.state_dict(), tmp_path / 'r.pth')
    teacher = dict(
        name='r',
        checkpoint=str(tmp_path / 'r.pth'),
        config=dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='mmpretrain.ResNet', depth=18),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(
                type='mmpretrain.LinearClsHead',
                num_classes=CLASSES,
                in_channels=512)))
    with pytest.raises(ValueError, match='convert.py FILE OUT --from torchvis'
                       'ion') as error:
        MODELS.build(distiller([teacher]))
    count = len(list(network.parameters())) + 2 * 20  # of batch norm
    assert f'({count} weights in the config, {count} in' in str(error.value)


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('share', [0., 0.02, 0.5, 0.99])
def test_a_truncated_checkpoint(teachers, tmp_path, share, legacy):
    path = tmp_path / 'cut.pth'
    content = torch.load(teachers[0]['checkpoint'])
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[:int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match='cut.pth.*(truncated|not a PyTorch)'):
        build(teachers, checkpoint=str(path))


def test_a_file_that_is_no_checkpoint(teachers, tmp_path):
    (tmp_path / 'a.pth').write_text('<html>404</html>')
    with pytest.raises(ValueError, match=r'a\.pth.*PyTorch checkpoint'):
        build(teachers, checkpoint=str(tmp_path / 'a.pth'))


@pytest.mark.parametrize('how', ['torch', 'legacy', 'pickle'])
@pytest.mark.parametrize('by, name', [('open', 'io.open'),
                                      ('system', 'posix.system')])
def test_a_pickle_with_code_is_not_run(teachers, tmp_path, how, by, name):
    trace, path = tmp_path / 'trace', tmp_path / 'evil.pth'
    content = dict(
        torch.load(teachers[0]['checkpoint']), meta=Payload(trace, by))
    if how == 'pickle':
        path.write_bytes(pickle.dumps(content, 2))
    else:
        torch.save(
            content, path, _use_new_zipfile_serialization=how == 'torch')
    with pytest.raises(ValueError, match=r'evil\.pth') as error:
        build(teachers, checkpoint=str(path))
    assert not trace.exists()
    if how == 'pickle':
        return  # rejected in the internal types of tensors already
    assert f'({name}); it was not run' in str(error.value)
    # otherwise the payload does nothing, and the test could not fail
    torch.load(path, weights_only=False)
    assert trace.exists()


def test_getattr_is_for_log_buffers_only(tmp_path):
    """Checkpoints of MMEngine need ``getattr`` for their log buffers."""
    from mmengine.logging import HistoryBuffer

    class Lookup:

        def __init__(self, name):
            self.name = name

        def __reduce__(self):
            return getattr, (HistoryBuffer, self.name)

    for name, good in (('mean', True), ('__init__', False)):
        path = str(tmp_path / f'{name}.pth')
        torch.save(dict(a=Lookup(name)), path)
        if good:
            assert checkpoint_io.load(path, 'key')['a'] is HistoryBuffer.mean
        else:
            with pytest.raises(ValueError, match='getattr of .*__init__'):
                checkpoint_io.load(path, 'key')


def test_another_architecture(teachers):
    with pytest.raises(ValueError) as error:
        build(teachers, config=classifier(5, hidden=3))
    message = str(error.value)
    assert "teacher 't0': checkpoint=" in message
    assert '2 missing: backbone.hidden.weight, backbone.hidden.bias' in message
    assert '1 of another shape: backbone.conv.weight (5, 3, 4, 4) in the ' \
        'file, (5, 3, 1, 1) in the config' in message.replace('\n', ' ')


def test_another_number_of_classes(teachers):
    with pytest.raises(
            ValueError, match='the file has 5 classes and the config 7'):
        build(teachers, config=classifier(5, classes=7))


def test_classes_that_are_not_the_students(teachers):
    with pytest.raises(ValueError,
                       match="'t0' has 7 classes and the student 5"):
        build(teachers, config=classifier(5, classes=7),
              checkpoint='untrained')


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite(teachers, tmp_path, value):
    content = torch.load(teachers[0]['checkpoint'])
    content['state_dict']['head.fc.weight'][1, 2] = value
    torch.save(content, tmp_path / 'nan.pth')
    with pytest.raises(ValueError, match='NaN or infinite.*1 weights: '
                       'head.fc.weight'):
        build(teachers, checkpoint=str(tmp_path / 'nan.pth'))


@pytest.mark.parametrize('content', [{}, [1, 2], dict(epoch=3),
                                     dict(state_dict={}), torch.zeros(3)])
def test_a_file_without_weights(teachers, tmp_path, content):
    torch.save(content, tmp_path / 'empty.pth')
    with pytest.raises(ValueError, match='holds no weights'):
        build(teachers, checkpoint=str(tmp_path / 'empty.pth'))


@pytest.mark.parametrize('wrap', [
    lambda w: w,
    lambda w: dict(model=w),
    lambda w: dict(state_dict={f'module.{n}': t for n, t in w.items()}),
    lambda w: dict(state_dict={
        **{f'student.{n}': t for n, t in w.items()},
        'projectors.0.layers.0.weight': torch.zeros(3)
    }),
    lambda w: dict(state_dict={
        **w, 'distillation.terms.1.projectors.0.0.layers.0.weight':
        torch.zeros(3)
    }),
], ids=['bare', 'model', 'parallel', 'our old distillation',
        'our own distillation'])
def test_whichever_way_it_wraps_them(teachers, tmp_path, wrap):
    weights = torch.load(teachers[0]['checkpoint'])['state_dict']
    torch.save(wrap(weights), tmp_path / 'w.pth')
    model = build(teachers, checkpoint=str(tmp_path / 'w.pth'))
    teacher, = model.distillation.teachers
    for name, value in teacher.model.state_dict().items():
        assert torch.equal(value, weights[name])


def test_a_real_runs_checkpoint_is_read_without_running_it(tmp_path):
    """MMEngine writes its own types into checkpoints; these are allowed by
    name."""
    from tests.toy import toy_runner
    toy_runner(
        tmp_path, classifier(), epochs=1, size=8,
        default_scope='mmpretrain').train()
    weights = read_checkpoint(str(tmp_path / 'epoch_1.pth'), 'key')
    assert 'backbone.conv.weight' in weights


@pytest.mark.parametrize('teachers, error, message', [
    ([], ValueError, r'teachers must be a list of at least one, got \[\]'),
    (None, ValueError, 'at least one, got None'),
    (['a.pth'], TypeError, r"teachers\[0\] must be a dict, got 'a.pth'"),
    ([dict(config={}, checkpoint='a')], ValueError, r'teachers\[0\].name'),
    ([dict(name='a/b', config={})], ValueError, "without \"/\", got 'a/b'"),
    ([dict(name='a', chekpoint='a')], ValueError,
     r"teachers\[0\] has unknown \['chekpoint'\].*'checkpoint'"),
    ([dict(name='a'), dict(name='b'), dict(name='a')], ValueError,
     r"teachers\[2\].name='a' is taken by teachers\[0\]"),
    ([dict(name='a', checkpoint='untrained')], ValueError,
     "'a' has no config"),
    ([dict(name='a', config=classifier())], ValueError,
     "'a' has no checkpoint.*checkpoint='untrained'"),
    ([dict(name='a', config='no/such.py', checkpoint='untrained')],
     FileNotFoundError, "'a': config='no/such.py': no such config"),
    ([dict(name='a', config='mmnope::a.py', checkpoint='untrained')],
     ValueError, "'a': config='mmnope::a.py'"),
    ([dict(name='a', config='mmpretrain::resnet/resnet19.py',
           checkpoint='untrained')], FileNotFoundError, 'resnet19.py'),
    ([dict(name='a', config=3, checkpoint='untrained')], TypeError,
     "'a': config must be a path"),
    ([dict(name='a', config=dict(epochs=3), checkpoint='untrained')],
     ValueError, "'a': config=.* has no model"),
    ([dict(name='a', config=dict(type='NoSuchNet'), checkpoint='untrained')],
     ValueError, "teacher 'a'.*NoSuchNet"),
    ([dict(name='a', config=classifier(), checkpoint='untrained',
           input_size=(1, 2, 3))], ValueError, r'input_size.*\(1, 2, 3\)'),
])
def test_bad_lists_of_teachers(teachers, error, message):
    with pytest.raises(error, match=message):
        MODELS.build(distiller(teachers))


def test_a_wrong_tap_names_teacher_and_paths(teachers):
    with pytest.raises(
            ValueError,
            match="teacher 't0'.taps.feature.*'backbne'.*'backbone'"):
        build(teachers, taps=dict(feature='backbne'))
    with pytest.raises(ValueError, match=r"unknown \['features'\]"):
        build(teachers, taps=dict(features='backbone'))


def test_untrained_is_allowed_by_name(teachers):
    torch.manual_seed(0)
    model = build(teachers, checkpoint='untrained')
    teacher, = model.distillation.teachers
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_config_from_a_file_and_its_preprocessor(tmp_path):
    (tmp_path / 'a.py').write_text(
        "default_scope = 'mmpretrain'\n"
        f'model = {classifier()!r}\n'
        'data_preprocessor = dict(mean=[1, 2, 3], std=[4, 5, 6])\n')
    model, scope = load_model_config(str(tmp_path / 'a.py'), 'key')
    assert scope == 'mmpretrain' and model['type'].endswith('ImageClassifier')
    assert model['data_preprocessor'] == dict(mean=[1, 2, 3], std=[4, 5, 6])


def test_a_distillations_config_means_its_student(tmp_path, teachers):
    (tmp_path / 'd.py').write_text(
        f'model = {distiller(teachers)!r}\n'
        'data_preprocessor = dict(mean=[1, 2, 3], std=[4, 5, 6])\n')
    model, _ = load_model_config(str(tmp_path / 'd.py'), 'key')
    assert model['backbone']['hidden'] == 6
    assert model['data_preprocessor']['mean'] == [1, 2, 3]
    nested = build([
        dict(
            name='student', config=str(tmp_path / 'd.py'),
            checkpoint='untrained')
    ])
    assert len(nested.distillation.teachers) == 1


def test_an_installed_packages_config_is_a_teacher():
    model = MODELS.build(
        distiller(
            [
                dict(
                    name='resnet18',
                    config='mmpretrain::resnet/resnet18_8xb32_in1k.py',
                    checkpoint='untrained')
            ],
            student=classifier(4, classes=1000),
            probe_size=32))
    teacher, = model.distillation.teachers
    context = model.distillation.weighting.context
    assert context.teachers[0].features == ((512, 1, 1), )
    # its config has a normalisation, the student's has none
    assert teacher.tapped.adapter.affine


def test_our_own_installed_config_is_a_teacher():
    name = 'mmkd_rl::cifar100/teachers/wrn28-4_1xb64-240e_cifar100.py'
    model, _ = load_model_config(name, 'key')
    assert model['backbone']['type'].endswith('CifarWideResNet')


def test_nothing_is_changed_when_weights_do_not_fit(teachers):
    with MODELS.switch_scope_and_registry('mmpretrain') as registry:
        network = registry.build(classifier(5, classes=7))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(ValueError):
        load_weights(network,
                     read_checkpoint(teachers[0]['checkpoint'], 'key'), 'path',
                     'key')
    assert all(
        torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.pth'
    checkpoint_io.save(dict(a=torch.ones(2)), str(path))

    def fail(obj, file):
        with open(file, 'wb') as f:
            f.write(b'half')
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(KeyboardInterrupt):
        checkpoint_io.save(dict(a=torch.zeros(2)), str(path))
    assert os.listdir(tmp_path) == ['a.pth']
    assert checkpoint_io.load(str(path), 'key')['a'].sum() == 2
