"""Every base works if a config of another package inherits it by its
``mmkd_rl::`` name. MMEngine then adds ``_scope_`` to dicts with a ``type``,
which the code must not read as an option."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import (
    DATA_SAMPLERS,
    HOOKS,
    PARAM_SCHEDULERS,
    init_default_scope,
)
from mmengine.runner import Runner

from mmkd_rl.registry import MODELS
from mmkd_rl.utils.configs import complete_loaders, load_config
from tests.toy import WorldDataset, classifier, toy_runner

ROOT = Path(__file__).parents[1] / 'configs' / '_base_'
#: Default scopes of the inheriting configs.
SCOPES = ('mmkd_rl', 'mmpretrain')


def bases(folder):
    found = sorted(p.relative_to(ROOT).as_posix()
                   for p in (ROOT / folder).rglob('*.py'))
    assert found
    return found


@pytest.fixture(params=SCOPES)
def inherited(request, tmp_path):
    """Read a base through a config in another folder."""
    def read(name, text=''):
        path = tmp_path / 'elsewhere.py'
        path.write_text(f"_base_ = ['mmkd_rl::_base_/{name}']\n{text}\n")
        cfg = Config.fromfile(path)
        cfg.default_scope = request.param
        init_default_scope(request.param)
        complete_loaders(cfg)
        return cfg
    return read


#: Bases that work with any default scope.
one_scope = pytest.mark.parametrize('inherited', SCOPES[1:], indirect=True)


def without_scopes(value):
    if isinstance(value, dict):
        return {k: without_scopes(v) for k, v in value.items()
                if k != '_scope_'}
    return [without_scopes(v) for v in value] \
        if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize('name', bases('.'))
def test_it_says_the_same(tmp_path, name):
    path = tmp_path / 'elsewhere.py'
    path.write_text(f"_base_ = ['mmkd_rl::_base_/{name}']")
    assert without_scopes(Config.fromfile(path).to_dict()) == \
        without_scopes(Config.fromfile(ROOT / name).to_dict())


def pipelines(dataset):
    """Pipelines of a data set, or of the data sets that it wraps."""
    inner = dataset.get('datasets') or [dataset.get('dataset')]
    return [dataset.pipeline] if 'pipeline' in dataset else [
        p for d in inner for p in pipelines(d)]


DATA = [*bases('datasets'), 'demo_digits.py', 'demo_scenes_det.py',
        'demo_scenes_seg.py']


@pytest.mark.parametrize('inherited, name', [
    (scope, name) for name in DATA for scope in SCOPES
    # These bases name MMPretrain's transforms without scope.
    if 'imagenet' not in name or scope == 'mmpretrain'],
    indirect=['inherited'])
def test_data(inherited, name):
    """Data loaders give batches (of toy images if the files are missing);
    transforms can be built."""
    cfg = inherited(name)
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = copy.deepcopy(cfg[key])
        for pipeline in pipelines(loader.dataset):
            assert Compose(pipeline).transforms
        loader.update(num_workers=0, persistent_workers=False, batch_size=4)
        loader.dataset = WorldDataset(8)
        loader.pop('batch_sampler', None)
        if 'RepeatAug' in loader.sampler.type:
            assert DATA_SAMPLERS.build(dict(
                loader.sampler, dataset=loader.dataset))
            loader.sampler = dict(type='DefaultSampler', shuffle=True)
        batch = next(iter(Runner.build_dataloader(loader, seed=0)))
        assert len(batch['inputs']) == len(batch['data_samples']) == 4
        stacked = 'scenes' not in name or \
            cfg.default_scope == 'mmpretrain'
        assert isinstance(batch['inputs'], torch.Tensor) is stacked


@one_scope
@pytest.mark.parametrize('name', [
    name for name in bases('models') if name != 'models/convnet.py'])
def test_models(inherited, name):
    """All models but convnet.py, which is a base of other bases and has no
    backbone."""
    cfg = inherited(name)
    with MODELS.switch_scope_and_registry('mmpretrain') as registry:
        model = registry.build(cfg.model)
    assert any(True for _ in model.parameters())


@pytest.mark.parametrize('name', bases('strategies'))
def test_strategies(inherited, name):
    """Strategies work in a config with a model; hooks can be built."""
    cfg = inherited(name)
    assert cfg.custom_hooks
    for hook in cfg.custom_hooks:
        assert HOOKS.build(hook)
    if 'weighting' not in cfg:
        return
    options = {k: cfg[k] for k in ('logit_loss', 'feature_loss', 'projector')
               if k in cfg}
    teacher = dict(name='a', config=classifier(), checkpoint='untrained')
    model = MODELS.build(dict(
        type='mmkd_rl.MultiTeacherDistiller', student=classifier(8, hidden=6),
        teachers=[teacher, dict(teacher, name='b')], probe_size=4,
        weighting=cfg.weighting, **options))
    assert type(model.distillation.weighting).__name__ == cfg.weighting.type


@one_scope
@pytest.mark.parametrize('name', [
    *bases('schedules'), 'demo_schedule_3e.py', 'demo_schedule_4e.py',
    'demo_schedule_250i.py'])
def test_schedules(inherited, name, tmp_path):
    cfg = inherited(name)
    runner = toy_runner(
        tmp_path / 'run', classifier(8, hidden=6), default_scope=cfg.
        default_scope, optim_wrapper=cfg.optim_wrapper)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    schedulers = cfg.get('param_scheduler', [])
    for scheduler in schedulers if isinstance(schedulers, list) else [
            schedulers]:
        scheduler = dict(scheduler)
        scheduler.pop('convert_to_iter_based', None)
        assert PARAM_SCHEDULERS.build(
            scheduler, default_args=dict(optimizer=runner.optim_wrapper))
    assert cfg.train_cfg


def test_two_bases_with_a_key_in_common(tmp_path):
    """MMEngine's message does not say which config, or what to do."""
    for name in 'ab':
        (tmp_path / f'{name}.py').write_text('custom_hooks = []\n')
    file = tmp_path / 'own.py'
    file.write_text("_base_ = ['a.py', 'b.py']\n")
    with pytest.raises(ValueError, match=(
            r"config '.*own.py'.*'custom_hooks'.*Keep one of the two as "
            'base')):
        load_config(file)
