"""Packaging, set-up and the command-line tools."""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from PIL import Image
from safetensors.torch import save_file

from mmkd_rl.registry import MODELS
from mmkd_rl.utils import cli
from mmkd_rl.utils.configs import load_config
from mmkd_rl.utils.patches import patch_mmengine
from tests.commands import in_process
from tests.toy import distiller, toy_teachers

ROOT = Path(__file__).resolve().parent.parent


def load_tool(name):
    """Import ``tools/<name>.py``, which does not belong to a package."""
    spec = importlib.util.spec_from_file_location(
        f'_tool_{name}', ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*command, cwd=ROOT, **variables):
    return subprocess.run([str(part) for part in command],
                          cwd=cwd,
                          env=dict(os.environ, OMP_NUM_THREADS='1',
                                   **variables),
                          stdin=subprocess.DEVNULL,
                          capture_output=True,
                          text=True,
                          timeout=300)


# ---- packaging -----------------------------------------------------------


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """A wheel and a source archive built from a copy of the repository."""
    folder = tmp_path_factory.mktemp('build')
    source = folder / 'source'
    # Links are copied as links: the .mim folder of an editable install must
    # not get into the wheel.
    shutil.copytree(
        ROOT,
        source,
        symlinks=True,
        ignore=shutil.ignore_patterns('.git', '.venv', 'work_dirs', 'data',
                                      'build', 'dist', 'site', '*.egg-info',
                                      '__pycache__', '.*_cache'))
    before = sorted((source / 'mmkd_rl').rglob('.mim/**/*'))
    for command in ('bdist_wheel', 'sdist'):
        done = run(sys.executable, 'setup.py', '-q', command, '-d',
                   folder / 'dist', cwd=source)
        assert done.returncode == 0, done.stderr
    assert sorted((source / 'mmkd_rl').rglob('.mim/**/*')) == before
    wheel, = (folder / 'dist').glob('*.whl')
    sdist, = (folder / 'dist').glob('*.tar.gz')
    return wheel, sdist


def test_wheel_holds_configs_and_tools(built):
    with zipfile.ZipFile(built[0]) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names))
    for folder in ('configs', 'tools'):
        for path in (ROOT / folder).rglob('*.py'):
            assert f'mmkd_rl/.mim/{path.relative_to(ROOT)}' in names
    for name in ('mmkd_rl/.mim/model-index.yml', 'mmkd_rl/registry.py',
                 'mmkd_rl/.mim/tools/dist_train.sh'):
        assert name in names
    assert not [n for n in names
                if n.startswith(('tests', 'configs', 'tools'))]


def test_sdist_can_build_the_wheel(built):
    with tarfile.open(built[1]) as archive:
        names = {n.partition('/')[2] for n in archive.getnames()}
    needed = ['setup.py', 'model-index.yml', 'LICENSE', 'tools/train.py']
    needed += [str(p.relative_to(ROOT))
               for p in (ROOT / 'requirements').glob('*.txt')]
    needed += [str(p.relative_to(ROOT))
               for p in (ROOT / 'configs').rglob('*.py')]
    assert not set(needed) - names
    assert not [n for n in names if n.startswith('mmkd_rl/.mim')]


def test_configs_are_read_from_an_installed_wheel(built, tmp_path):
    site = tmp_path / 'site-packages'
    with zipfile.ZipFile(built[0]) as archive:
        archive.extractall(site)
    config = sorted((ROOT / 'configs' / '_base_').rglob('*.py'))[0]
    name = config.relative_to(ROOT / 'configs').as_posix()
    child = tmp_path / 'child.py'
    child.write_text(f"_base_ = 'mmkd_rl::{name}'\nadded = 1\n")
    done = run(
        sys.executable,
        '-c', 'import sys, mmkd_rl, mmengine.hub\n'
        'from mmengine.config import Config\n'
        f'child = Config.fromfile({str(child)!r})\n'
        f'assert len(child) > 1, child\n'
        f"mmengine.hub.get_config('mmkd_rl::{name}')\n"
        'print(mmkd_rl.__file__)',
        cwd=tmp_path,
        PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(str(site))


def test_constraints_agree_with_the_pins():
    """Otherwise the resolver would refuse the set-up on a new machine."""
    def lines(name):
        text = (ROOT / 'requirements' / f'{name}.txt').read_text()
        found = [re.sub(r'\s', '', x.split('#')[0]) for x in text.splitlines()]
        return [x.replace('python_version', 'python_full_version')
                .replace('"', "'") for x in found if x]

    constraints = set(lines('constraints'))
    for name in ('build', 'runtime', 'mminstall', 'tools', 'tests', 'docs',
                 'optional'):
        for line in lines(name):
            assert '==' in line, f'{line} in {name}.txt is not pinned'
            if not line.startswith('onedl-mmcv'):
                assert line in constraints, f'{line} of {name}.txt'


# ---- make and the set-up -------------------------------------------------


def test_make_help_lists_every_target():
    makefile = (ROOT / 'Makefile').read_text()
    targets = re.search(r'^\.PHONY: (.*)$', makefile, re.M).group(1).split()
    done = run('make', '--no-print-directory')  # help is the default
    assert done.returncode == 0, done.stderr
    listed = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert listed == targets


def test_old_python_is_refused_with_advice():
    setup_env = load_tool('setup_env')
    with pytest.raises(setup_env.SetupError, match=r'Python 3\.8.*3\.10 to'):
        setup_env.check_python((3, 8))
    setup_env.check_python((3, 10))


def test_missing_compiler_is_named(monkeypatch):
    setup_env = load_tool('setup_env')
    setup_env.check_machine()
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(setup_env.SetupError, match=r'apt-get install g\+\+'):
        setup_env.check_machine()


def test_setup_is_repeated_when_something_changed(tmp_path):
    setup_env = load_tool('setup_env')
    (tmp_path / 'requirements').mkdir()
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'mmkd_rl/.mim/configs').mkdir(parents=True)
    pins = tmp_path / 'requirements' / 'runtime.txt'
    for path in (pins, tmp_path / 'setup.py', tmp_path / 'tools/setup_env.py'):
        path.write_text('a==1')
    env = setup_env.Env(tmp_path)
    env.python.parent.mkdir(parents=True)
    env.python.touch()
    assert not env.is_ready()
    env.write_stamp()
    assert env.is_ready()
    env.unfinished.touch()
    assert not env.is_ready()
    env.unfinished.unlink()
    pins.write_text('a==2')
    assert not env.is_ready()


def test_failed_step_shows_its_reason(capfd):
    setup_env = load_tool('setup_env')
    with pytest.raises(setup_env.SetupError, match='the step failed .*code 3'):
        setup_env.run([sys.executable, '-c',
                       'import sys; print("no disk"); sys.exit(3)'],
                      'the step')
    assert 'no disk' in capfd.readouterr().err


def test_check_explains_torch_and_torchvision():
    check_env = load_tool('check_env')
    text = check_env.explain_torch(
        RuntimeError('operator torchvision::nms does not exist'))
    assert 'do not belong together' in text and 'make setup' in text


@pytest.mark.parametrize('error, expected', [
    (ModuleNotFoundError("No module named 'mmcv._ext'"),
     'without its compiled operators'),
    (ImportError('_ext.so: undefined symbol: _ZN3c10'), 'another torch'),
])
def test_check_explains_operators(error, expected):
    text = load_tool('check_env').explain_operators(error)
    assert expected in text and 'make setup' in text


def test_check_of_versions():
    check_env = load_tool('check_env')
    pins = {'torch': '2.13.0', 'onedl-mmcv': '2.3.6', 'onedl-mmengine': '1',
            'numpy': '2.4.6', 'timm': '1.0'}
    have = {'torch': '2.13.0+cpu', 'onedl-mmcv': '2.3.6', 'mmcv': '2.2.0',
            'mmengine': '0.10.7', 'numpy': '2.0.0'}
    problems, notes = check_env.check_versions(pins, have.get)
    assert [p.split()[0] for p in problems] == ['onedl-mmcv', 'timm']
    assert [n.split()[0] for n in notes] == ['mmengine', 'numpy']


def test_pins_follow_the_python_version(tmp_path):
    file = tmp_path / 'a.txt'
    file.write_text("# head\na==1; python_version >= '3'\n"
                    "a==2; python_version < '3'\nb==3  # why\n")
    pins = load_tool('check_env').read_pins([file])
    assert pins == {'a': '1', 'b': '3'}


# ---- errors of the command-line tools ------------------------------------


@pytest.mark.parametrize('error, code, text', [
    (KeyError('Foo is not in the registry'), 2, 'ERROR: Foo is not'),
    (KeyError('model'), 2, "ERROR: missing key 'model'"),
    (ValueError('temperature must be > 0'), 2, 'ERROR: temperature must'),
    (KeyboardInterrupt(), 130, 'stopped'),
])
def test_bad_input_ends_with_one_message(error, code, text, capsys):
    with pytest.raises(SystemExit) as caught, cli.clear_errors():
        raise error
    assert caught.value.code == code
    message = capsys.readouterr().err
    assert text in message and 'Traceback' not in message


@pytest.mark.parametrize('path, expected', [
    ('data/cifar100/train/', [
        'No such file or directory', 'train_dataloader.dataset.data_root='
        "'data/cifar100/train'", '--cfg-options train_dataloader.dataset.'
        'data_root=FOLDER', 'configs/cifar100/README.md']),
    ('data/imagenet/val', ['configs/imagenet/README.md']),
    ('data/mine/list.txt', ["val_dataloader.dataset.dataset.ann_file="
                            "'data/mine/list.txt'"]),
])
def test_missing_data_name_their_setting(path, expected, capsys, tmp_path,
                                         monkeypatch):
    monkeypatch.chdir(tmp_path)  # the repository may have data/cifar100
    cfg = Config(dict(
        train_dataloader=dict(
            dataset=dict(type='A', data_root='data/cifar100/train')),
        val_dataloader=dict(dataset=dict(
            type='B', dataset=dict(ann_file='data/mine/list.txt')))))
    with pytest.raises(SystemExit), cli.clear_errors() as stage:
        stage.cfg = cfg
        os.scandir(path)
    message = capsys.readouterr().err
    assert all(text in message for text in expected), message
    assert ('README' in message) == ('README' in expected[-1])


def test_debug_shows_the_traceback(capsys):
    with pytest.raises(SystemExit) as caught, cli.clear_errors(debug=True):
        raise ValueError('temperature')
    assert caught.value.code == 2
    assert 'Traceback' in capsys.readouterr().err


def test_other_failures_are_not_hidden():
    with pytest.raises(ZeroDivisionError), cli.clear_errors():
        1 / 0  # noqa: B018


@pytest.mark.parametrize('fault', [
    lambda: cli.no_such_name,
    lambda: torch.nn.Linear(1, 1).no_such_name,
    lambda: torch.zeros(2) + torch.zeros(3),
    lambda: len(3),
    lambda: {}['key'],
    lambda: importlib.util.no_such_name])
def test_a_fault_keeps_its_traceback(fault, capsys):
    """Errors of any type, also before the first batch."""
    with pytest.raises(SystemExit) as caught, cli.clear_errors():
        fault()
    assert caught.value.code == 1
    assert 'Traceback' in capsys.readouterr().err


def test_a_fault_of_ours_within_a_part(monkeypatch, capsys, tmp_path):
    """Errors of our code when a term, strategy or teacher is built, and in the
    probe, where other exceptions become messages about the config."""
    from mmkd_rl.losses import KDLoss
    from mmkd_rl.tasks import ClassificationTask
    from mmkd_rl.teachers import building
    from mmkd_rl.utils.pooling import mean_over_space
    from mmkd_rl.weighting import AverageWeighting

    def break_it(*args, **kwargs):
        return mean_over_space(3)  # an AttributeError in our code

    def break_type(*args, **kwargs):
        return cli.config_name(3, 3)

    model = distiller(toy_teachers(tmp_path))
    for place, name, how in (
            (KDLoss, '__init__', break_it), (KDLoss, 'build', break_type),
            (AverageWeighting, '__init__', break_it),
            (ClassificationTask, 'infer', break_it),
            (ClassificationTask, 'taps', break_it),
            (building, 'load_weights', break_type)):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, how)
            with pytest.raises(SystemExit) as caught, cli.clear_errors():
                MODELS.build(model)
        assert caught.value.code == 1, (place, name)
        assert 'Traceback' in capsys.readouterr().err


@pytest.mark.parametrize('text, code', [
    ('a = (', 2), ('a = b', 2),
    ("_base_ = 'no.py'", 2), ("_base_ = 'mmnone::a/b.py'", 2),
    ("custom_imports = dict(imports=['no_such_package'])", 2)])
def test_a_config_that_cannot_be_read(text, code, tmp_path, capsys):
    """Any error in the code of a config is reported as one of the config."""
    path = tmp_path / 'a.py'
    path.write_text(text)
    with pytest.raises(SystemExit) as caught, cli.clear_errors():
        load_config(path)
    assert caught.value.code == code
    assert 'Traceback' not in capsys.readouterr().err


def test_errors_in_the_loop(capsys, monkeypatch):
    """A crash is shown with its traceback, our messages without."""
    monkeypatch.setattr(cli.Stage, 'running', True)
    with pytest.raises(SystemExit) as caught, cli.clear_errors():
        torch.zeros(2) + torch.zeros(3)
    assert caught.value.code == 1
    assert 'Traceback' in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught, cli.clear_errors():
        cli.check_checkpoint('/no/such.pth', 'load_from')
    assert caught.value.code == 2
    assert 'Traceback' not in capsys.readouterr().err


class _Bomb:
    """Object whose pickle creates the folder ``path`` when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path, )


@pytest.fixture
def load():
    """Load a file as load_from, resume and init_cfg do."""
    patch_mmengine()
    return CheckpointLoader.load_checkpoint


def test_checkpoint_with_code_is_refused_and_does_not_run(tmp_path, load):
    trace = tmp_path / 'trace'
    bad = tmp_path / 'bad.pth'
    torch.save({'state_dict': _Bomb(str(trace))}, bad)
    with pytest.raises(ValueError, match='was not run'):
        load(str(bad))
    assert not trace.exists()
    # Unrestricted loading does create the folder:
    torch.load(bad, weights_only=False)
    assert trace.exists()
    plain = tmp_path / 'plain.pth'
    plain.write_bytes(pickle.dumps(_Bomb(str(tmp_path / 'other'))))
    with pytest.raises(ValueError, match='checkpoint'):
        load(str(plain))
    assert not (tmp_path / 'other').exists()


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_cut_checkpoint_is_refused(tmp_path, load, suffix):
    file = tmp_path / f'cut.{suffix}'
    write = torch.save if suffix == 'pth' else save_file
    write({'w': torch.ones(1000)}, file)
    assert torch.equal(load(str(file))['w'], torch.ones(1000))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match='cannot be read, it is truncated'):
        load(str(file))


def test_arrays_in_a_checkpoint(tmp_path, load):
    """Arrays of all usual types, also in the format of NumPy 1."""
    file = tmp_path / 'a.pth'
    kinds = ['?', 'i1', 'u1', 'i2', 'i4', 'i8', 'f2', 'f4', 'f8', 'c8']
    content = dict(arrays=[np.ones(3, k) for k in kinds],
                   scalars=[np.ones(1, k)[0] for k in kinds])
    torch.save(content, file)
    old = tmp_path / 'old.pth'
    with zipfile.ZipFile(file) as new, zipfile.ZipFile(old, 'w') as written:
        for name in new.namelist():
            written.writestr(name, new.read(name).replace(
                b'numpy._core', b'numpy.core'))
    assert b'numpy.core.multiarray' in old.read_bytes()
    for path in (file, old):
        back = load(str(path))
        for kind, array, scalar in zip(kinds, *back.values()):
            assert array.dtype == scalar.dtype == np.dtype(kind)
            assert array.all() and scalar == 1


def test_wrong_config_path_names_near_ones(tmp_path):
    (tmp_path / 'student_alone.py').write_text('a = 1')
    with pytest.raises(FileNotFoundError, match=r'has student_alone\.py'):
        load_config(str(tmp_path / 'student_alon.py'))
    with pytest.raises(FileNotFoundError, match='no folder'):
        load_config(str(tmp_path / 'no' / 'student.py'))


@pytest.mark.parametrize('script, arguments', [
    ('dist_train.sh', ['config.py']),
    ('dist_test.sh', ['config.py', 'x.pth']),
    ('slurm_train.sh', ['part', 'job', 'config.py']),
])
def test_scripts_say_how_they_are_used(script, arguments):
    done = run('bash', ROOT / 'tools' / script, *arguments)
    assert done.returncode == 2
    assert script in done.stderr and 'CONFIG' in done.stderr


# ---- train.py and test.py ------------------------------------------------

PLAIN = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmpretrain.LeNet5', num_classes=-1),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=120,
              topk=(1, )),
    neck=dict(type='GlobalAveragePooling'),
    data_preprocessor=dict(mean=[127.], std=[60.]))
data = dict(
    type='CustomDataset', data_root={root!r},
    pipeline=[dict(type='LoadImageFromFile', color_type='grayscale'),
              dict(type='PackInputs')])
train_dataloader = dict(batch_size=2, num_workers=0, dataset=data,
                        sampler=dict(type='DefaultSampler', shuffle=True))
test_dataloader = dict(batch_size=2, num_workers=0, dataset=data,
                       sampler=dict(type='DefaultSampler', shuffle=False))
test_evaluator = dict(type='Accuracy', topk=(1, ))
test_cfg = dict()
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
"""


@pytest.fixture
def plain_config(tmp_path):
    """A plain MMPretrain config, eight noise images in two classes."""
    rng = np.random.default_rng(0)
    for label in 'ab':
        (tmp_path / 'data' / label).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 255, (32, 32), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f'data/{label}/{i}.png')
    config = tmp_path / 'plain.py'
    config.write_text(PLAIN.format(root=str(tmp_path / 'data')))
    return config


@pytest.mark.slow
def test_train_and_test_a_plain_config(plain_config):
    folder = plain_config.parent
    train = [sys.executable, ROOT / 'tools/train.py', plain_config.name]
    done = run(*train, '--seed', '3', cwd=folder)
    assert done.returncode == 0, done.stderr
    checkpoint = folder / 'work_dirs/plain/epoch_1.pth'
    assert checkpoint.exists()
    done = run(sys.executable, ROOT / 'tools/test.py', plain_config.name,
               checkpoint, '--out', 'metrics.json', cwd=folder)
    assert done.returncode == 0, done.stderr
    assert 'accuracy' in (folder / 'metrics.json').read_text()


@pytest.mark.slow
def test_two_processes_on_the_cpu(plain_config):
    done = run('bash', ROOT / 'tools/dist_train.sh', plain_config, '2',
               '--work-dir', plain_config.parent / 'out',
               PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
               CUDA_VISIBLE_DEVICES='', PORT='29571')
    assert done.returncode == 0, done.stderr[-3000:]
    assert (plain_config.parent / 'out/epoch_1.pth').exists()


def test_train_with_bad_input(plain_config):
    """Exit code and one message; run in a separate process."""
    done = run(sys.executable, ROOT / 'tools/train.py', 'no_such.py',
               cwd=plain_config.parent)
    assert done.returncode == 2
    assert "config 'no_such.py' is not a file" in done.stderr
    assert 'Traceback' not in done.stderr


def test_train_without_its_data(plain_config, monkeypatch, capfd):
    monkeypatch.chdir(plain_config.parent)
    code, text = in_process(
        monkeypatch, capfd, 'train.py', 'plain.py',
        options=['train_dataloader.dataset.data_root=/no'])
    assert code == 2
    assert "there is no '/no" in text
    assert 'Traceback' not in text
