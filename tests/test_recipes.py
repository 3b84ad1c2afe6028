"""Makes a distillation from a plain config, by a command or a call."""

import doctest
import warnings
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

import mmkd_rl
from mmkd_rl import options, recipes
from mmkd_rl.recipes import parse_teacher, reading
from mmkd_rl.registry import MODELS, WEIGHTINGS
from mmkd_rl.utils.configs import load_config, merge_options
from mmkd_rl.weighting import MTKDRL, WeightingStrategy
from mmkd_rl.weighting.base import equal_weights
from tests.commands import config, in_process
from tests.toy import classifier, distiller, toy_teachers

RESNET = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
RETINANET = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
PSPNET = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
TEACHER = f'a={RESNET}:untrained'
STRATEGIES = [
    'ae_kd', 'amtml_kd', 'aver', 'aver_kd', 'ca_mkd', 'ca_mkd_official',
    'eb_kd', 'knowledge_flow', 'knowledge_flow_paper', 'mmkd', 'mtkd_rl',
    'mtkd_rl_official', 'mtkd_rl_paper-rule']


@pytest.fixture
def plain(tmp_path):
    """A plain config of the toy world, with a custom hook."""
    return config(tmp_path, 'plain', classifier(8, hidden=6),
                  custom_hooks=[dict(type='EMAHook', momentum=.2)],
                  optim_wrapper=dict(optimizer=dict(type='SGD', lr=.05)))


@pytest.fixture
def teachers(tmp_path):
    """Teachers in the form of the command line."""
    made = []
    for teacher in toy_teachers(tmp_path):
        path = config(tmp_path, teacher['name'], teacher['config'])
        made.append(f"{teacher['name']}={path}:{teacher['checkpoint']}")
    return made


def names(cfg):
    return [hook['type'].rpartition('.')[2] for hook in cfg.custom_hooks]


def built(cfg):
    init_default_scope(cfg.default_scope)
    model = dict(cfg.model)
    if 'data_preprocessor' in cfg:  # as in MMEngine's runner
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return MODELS.build(model)


# ------------------------------------------------------ the resulting config


@pytest.mark.parametrize('module, least', [
    (recipes, 3), (reading, 3), (options, 1)])
def test_the_examples_in_the_docstrings(module, least):
    result = doctest.testmod(module)
    assert result.attempted >= least and not result.failed


@pytest.mark.parametrize('kind, expected', [
    ('AgentAlternationHook', dict(warmup=3, interval=3, by_epoch=False)),
    ('LearnerHook', dict(warmup=3, interval=3, by_epoch=False)),
    ('MetaWeightingHook', {}), ('TeacherCheckHook', {})])
def test_any_learners_hook_counts_as_training_does(plain, teachers, tmp_path,
                                                   kind, expected):
    """If training counts iterations, the interval is a hundredth of them."""
    strategy = tmp_path / 'mine.py'
    strategy.write_text("weighting = dict(type='AverageWeighting')\n"
                        f"custom_hooks = [dict(type='mmkd_rl.{kind}')]")
    cfg = Config.fromfile(plain)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=300)
    made = mmkd_rl.distill(cfg, str(strategy), teachers)
    hook, = [h for h in made.custom_hooks if h['type'] == f'mmkd_rl.{kind}']
    assert {k: v for k, v in hook.items() if k != 'type'} == expected


def test_it_is_what_one_would_write(plain, teachers, tmp_path):
    """The model equals that of a config written by hand; data, schedule and
    hooks are unchanged."""
    before = Config.fromfile(plain)
    cfg = mmkd_rl.distill(plain, 'mtkd_rl', teachers, probe_size=4)
    model = cfg.model.to_dict()
    assert model == dict(
        type='mmkd_rl.MultiTeacherDistiller',
        student=before.model.to_dict(),
        teachers=[dict(name=f't{i}', config=str(tmp_path / f't{i}.py'),
                       checkpoint=str(tmp_path / f'teacher{i}.pth'))
                  for i in range(2)],
        logit_loss=dict(type='mmkd_rl.KDLoss', temperature=4.,
                        loss_weight=1.),
        feature_loss=dict(type='mmkd_rl.FitNetLoss', loss_weight=5.),
        weighting=dict(type='MTKDRL'), probe_size=4)
    for key in ('train_dataloader', 'optim_wrapper', 'train_cfg'):
        left = cfg[key].to_dict()
        left.pop('collate_fn', None)
        assert left == before[key].to_dict()
    assert names(cfg) == [
        'EMAHook', 'TeacherCheckHook', 'AgentAlternationHook',
        'WeightVisualizationHook', 'StudentExportHook', 'RandomStateHook']
    assert Config.fromfile(plain).to_dict() == before.to_dict()


def test_a_config_in_memory_stays_as_it_is(plain, teachers):
    given = Config.fromfile(plain)
    before = given.to_dict()
    assert mmkd_rl.distill(given, 'aver', teachers).model.student == \
        given.model
    assert given.to_dict() == before and given.filename == str(plain)


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_every_strategy_by_its_name(plain, teachers, strategy):
    """Each strategy can be built, and adds the hook that trains it."""
    cfg = mmkd_rl.distill(plain, strategy, teachers, **(
        {} if 'flow' in strategy else dict(probe_size=4)))
    if 'flow' in strategy:
        cfg.model.backbone.update(probe_size=4, links=[
            dict(student='conv', teachers=dict(t0='conv', t1='conv'))])
        assert 'KnowledgeFlowHook' in names(cfg)
        assert hasattr(built(cfg).backbone, 'knowledge_flow')
        return
    weighting = built(cfg).distillation.weighting
    needed = [hook['type'].rpartition('.')[2] for hook in weighting.hooks]
    assert set(needed) <= set(names(cfg))
    assert len(set(names(cfg))) == len(names(cfg))


def test_no_strategy_is_left_out_here():
    assert recipes.strategy_names() == STRATEGIES


def test_terms_in_place_of_the_strategys(plain, teachers):
    cfg = mmkd_rl.distill(
        plain, 'aver', teachers, probe_size=4, terms=[
            dict(type='KDLoss', temperature=2.), dict(type='NDLoss'),
            dict(type='FitNetLoss')])
    kinds = [type(t).__name__ for t in built(cfg).distillation.terms]
    assert kinds == ['KDLoss', 'NDLoss', 'FitNetLoss']
    # NDLoss needs the class means.
    assert 'ClassMeanHook' in names(cfg)
    without = mmkd_rl.distill(plain, 'aver', teachers, terms=[
        dict(type='NDLoss', means='running')])
    assert 'ClassMeanHook' not in names(without)


def test_hooks_are_not_added_twice(plain, teachers):
    given = Config.fromfile(plain)
    given.custom_hooks = [dict(type='mmkd_rl.AgentAlternationHook', warmup=7)]
    given.default_hooks = dict(random=dict(type='RandomStateHook'))
    cfg = mmkd_rl.distill(given, 'mtkd_rl', teachers)
    assert cfg.custom_hooks[0].warmup == 7
    assert names(cfg).count('AgentAlternationHook') == 1
    assert 'RandomStateHook' not in names(cfg)


def test_a_pool_comes_first(plain, teachers, tmp_path):
    pool = tmp_path / 'pool.py'
    pool.write_text(f"""
teachers = [dict(name='p', config={str(plain)!r}, checkpoint='untrained',
                 input_size=4)]""")
    cfg = mmkd_rl.distill(plain, 'aver', teachers, pool=pool)
    assert [t.name for t in cfg.model.teachers] == ['p', 't0', 't1']
    assert cfg.model.teachers[0].input_size == 4
    named = mmkd_rl.distill(plain, 'aver', pool='cifar100_table1')
    assert len(named.model.teachers) == 4
    two = mmkd_rl.distill(plain, 'aver', pool='cifar100_table1:2')
    assert two.model.teachers == named.model.teachers[:2]
    with pytest.raises(ValueError, match='has 4 teachers, not 5'):
        mmkd_rl.distill(plain, 'aver', pool='cifar100_table1:5')


def test_teachers_of_a_pool_by_their_names(plain, tmp_path, monkeypatch):
    """Teachers are in the given order, from any pool; the name of a file may
    contain a colon."""
    for pool in ('cifar100_table1',
                 'mmkd_rl::_base_/pools/cifar100_table1.py'):
        cfg = mmkd_rl.distill(plain, 'aver', pool=f'{pool}:wrn28-4,resnet32x4')
        assert [t.name for t in cfg.model.teachers] == ['wrn28-4',
                                                        'resnet32x4']
        assert 'wrn28-4' in cfg.model.teachers[0].config
    monkeypatch.chdir(tmp_path)
    for name in ('mine.py', 'a:mine.py'):
        (tmp_path / name).write_text(f'teachers = [{TEACHER!r}]')
        assert len(mmkd_rl.distill(plain, 'aver', pool=name).model.teachers) \
            == 1
    cfg = mmkd_rl.distill(plain, 'aver', pool='mine.py:a')
    assert cfg.model.teachers[0] == recipes.parse_teacher(TEACHER)
    for which, wrong in (('resnet20', 'resnet20'), ('resnet32x4,', '')):
        with pytest.raises(ValueError, match=f'has no teacher {wrong!r}; it '
                           'has regnety-400mf, regnetx-400mf, resnet32x4'):
            mmkd_rl.distill(plain, 'aver', pool=f'cifar100_table1:{which}')
    with pytest.raises(ValueError, match="name='wrn28-4' is taken"):
        mmkd_rl.distill(plain, 'aver', pool='cifar100_table1:wrn28-4,wrn28-4')


def test_a_hook_is_named_by_its_type(plain, teachers):
    """``--cfg-options`` names a hook by its type, so that its position in the
    list has no effect."""
    cfg = mmkd_rl.distill(plain, 'mtkd_rl', teachers)
    merge_options(cfg, {'custom_hooks.AgentAlternationHook.warmup': 7,
                        'custom_hooks.0.momentum': .5, 'model.probe_size': 4})
    assert cfg.custom_hooks[0] == dict(type='EMAHook', momentum=.5)
    assert cfg.custom_hooks[2].type.endswith('AgentAlternationHook')
    assert (cfg.custom_hooks[2].warmup, cfg.model.probe_size) == (7, 4)
    with pytest.raises(ValueError, match='has 0 of type KnowledgeFlowHook; '
                       'there are 0: EMAHook, 1: TeacherCheckHook'):
        merge_options(cfg, {'custom_hooks.KnowledgeFlowHook.kl_weight': 0})
    cfg.custom_hooks.append(dict(type='EMAHook'))
    with pytest.raises(ValueError, match='has 2 of type EMAHook'):
        merge_options(cfg, {'custom_hooks.EMAHook.momentum': 0})
    cfg.pop('custom_hooks')
    with pytest.raises(ValueError, match='none at all'):
        merge_options(cfg, {'custom_hooks.EMAHook.momentum': 0})


def test_a_strategy_of_ones_own(plain, teachers, tmp_path):
    """A strategy can be a file, or a registered type that adds its hook."""
    file = tmp_path / 'mine.py'
    file.write_text("""
_base_ = 'mmkd_rl::_base_/strategies/mtkd_rl.py'
weighting = dict(scale='paper')
""")
    cfg = mmkd_rl.distill(plain, str(file), teachers, probe_size=4)
    assert cfg.model.weighting.scale == 'paper'
    assert isinstance(built(cfg).distillation.weighting, MTKDRL)

    @WEIGHTINGS.register_module(force=True)
    class Mine(WeightingStrategy):
        hooks = (dict(type='CheckInvalidLossHook'), )

        def forward(self, batch):
            weights = equal_weights(batch, self.num_teachers)
            return mmkd_rl.records.TeacherWeights(weights, weights)

    try:
        cfg = mmkd_rl.distill(plain, 'Mine', teachers, probe_size=4)
        assert 'CheckInvalidLossHook' in names(cfg)
        assert isinstance(built(cfg).distillation.weighting, Mine)
    finally:
        WEIGHTINGS.module_dict.pop('Mine')


def test_both_methods(plain, teachers):
    cfg = mmkd_rl.distill(plain, 'aver+knowledge_flow', teachers,
                          probe_size=4)
    backbone = cfg.model.student.backbone
    assert backbone.type == 'mmkd_rl.KnowledgeFlowBackbone'
    assert backbone.teachers == 'distiller'
    assert {'KnowledgeFlowHook', 'TeacherCheckHook'} <= set(names(cfg))


# ------------------------------------------- configs of installed packages


def test_a_classifier_of_mmpretrain(tmp_path):
    """The probe size is the size of the config's crops; the config is the same
    after dumping and reading it."""
    cfg = mmkd_rl.distill(RESNET, 'mtkd_rl', [TEACHER])
    assert cfg.model.probe_size == 224
    assert cfg.work_dir == 'work_dirs/resnet18_8xb32_in1k_mtkd_rl'
    model = built(cfg)
    assert isinstance(model.distillation.weighting, MTKDRL)
    cfg.dump(tmp_path / cfg.filename)
    again = Config.fromfile(tmp_path / 'resnet18_8xb32_in1k_mtkd_rl.py')
    assert again.to_dict() == cfg.to_dict()


def test_a_folder_as_checkpoint(tmp_path):
    """The last checkpoint of a run, by name: a run that goes on must not
    change the teacher of a resumed one."""
    config = dict(type='mmpretrain.ImageClassifier')
    with pytest.raises(FileNotFoundError, match="teacher 'a': checkpoint=.*is "
                       'a folder without a checkpoint'):
        parse_teacher(f'a=a.py:{tmp_path}')
    for name in ('epoch_1.pth', 'epoch_2.pth'):
        torch.save({}, tmp_path / name)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    for teacher in (f'a=a.py:{tmp_path}', dict(
            name='a', config=config, checkpoint=str(tmp_path))):
        assert parse_teacher(teacher)['checkpoint'] == str(
            tmp_path / 'epoch_2.pth')
    with pytest.raises(FileNotFoundError, match='this is a folder; name a fi'):
        MODELS.build(distiller([dict(name='a', config=config,
                                     checkpoint=str(tmp_path))]))


def test_the_command(plain, teachers, monkeypatch, capfd, tmp_path):
    """The command trains, the plain config loads the checkpoint, and the run
    can be resumed."""
    monkeypatch.chdir(tmp_path)
    arguments = ['train.py', plain, '--distill', 'mtkd_rl', '--teacher',
                 teachers[0], '--teacher', teachers[1], '--term', 'KDLoss',
                 'temperature=2.', '--term', 'FitNetLoss']
    options = ['model.probe_size=4', 'train_cfg.max_epochs=2']
    code, text = in_process(monkeypatch, capfd, *arguments, options=options)
    assert code == 0, text
    folder = tmp_path / 'work_dirs' / 'plain_mtkd_rl'
    assert 'loss_feature' in text and 'agent/entropy' in text
    made = Config.fromfile(folder / 'plain_mtkd_rl.py')
    assert made.model.losses[0] == dict(type='KDLoss', temperature=2.)
    code, text = in_process(monkeypatch, capfd, 'test.py', plain,
                            folder / 'epoch_2.pth')
    assert code == 0 and '6 of 6 weights' in text
    code, text = in_process(monkeypatch, capfd, *arguments, '--resume',
                            options=[options[0], 'train_cfg.max_epochs=3'])
    assert code == 0 and (folder / 'epoch_3.pth').exists(), text
    state = torch.load(folder / 'student.pth', weights_only=True)
    assert len(state['state_dict']) == 6


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize('text, what', [
    ('r50.py:r50.pth', 'no "="'), ('=r50.py:r50.pth', 'no name'),
    ('r50=:r50.pth', 'no config'), ('r50=r50.py', 'no checkpoint'),
    ('r50=r50.py:', 'no checkpoint'), ('', 'no "="'),
    ('r50=mmpretrain::resnet/r50.py', 'no checkpoint')])
def test_a_teacher_that_is_not_written_so(text, what):
    with pytest.raises(ValueError) as error:
        mmkd_rl.distill(RESNET, 'aver', [text])
    assert f'teacher {text!r} has {what}' in str(error.value)
    assert 'NAME=CONFIG:CHECKPOINT' in str(error.value)


@pytest.mark.parametrize('text, config, checkpoint', [
    ('a=x.py:y.pth', 'x.py', 'y.pth'),
    ('a=mmdet::x/y.py:y.pth', 'mmdet::x/y.py', 'y.pth'),
    ('a=x.py:https://h/y.pth', 'x.py', 'https://h/y.pth'),
    ('a=d=1/x.py:y=2.pth', 'd=1/x.py', 'y=2.pth'),
    ('a=mmdet::x/y.py:s3://b/y.pth', 'mmdet::x/y.py', 's3://b/y.pth')])
def test_a_teacher_in_one_word(text, config, checkpoint):
    assert recipes.parse_teacher(text) == dict(
        name='a', config=config, checkpoint=checkpoint)


def test_a_teachers_config_from_python(tmp_path):
    """A Config or a path mean what its file means; the result can be
    written and read."""
    given = load_config(RESNET)
    by_name, by_config = (
        mmkd_rl.distill(RESNET, 'aver', [dict(
            name='a', config=config, checkpoint='untrained')])
        for config in (RESNET, given))
    by_config.dump(str(tmp_path / 'x.py'))
    read = Config.fromfile(tmp_path / 'x.py').model
    assert read.teachers[0].config.model == given.model
    assert [type(t.model.backbone) for cfg in (by_name, by_config)
            for t in built(cfg).distillation.teachers] == [
                type(built(by_name).backbone)] * 2
    path = Path(given.filename)
    assert parse_teacher(dict(name='a', config=path))['config'] == str(path)


@pytest.mark.parametrize('error, message, arguments, options', [
    (ValueError, "teachers[1].name='a' is taken", (RESNET, 'aver',
                                                   [TEACHER] * 2), {}),
    (ValueError, 'there are no teachers', (RESNET, 'aver'), {}),
    (ValueError, "'mtkd-rl' is unknown; did you mean 'mtkd_rl'?",
     (RESNET, 'mtkd-rl', [TEACHER]), {}),
    (ValueError, 'two strategies of the same kind',
     (RESNET, 'mtkd_rl+aver', [TEACHER]), {}),
    (TypeError, 'strategy must be a name', (RESNET, None, [TEACHER]), {}),
    (TypeError, 'got 3', (RESNET, 'aver', [3]), {}),
    (TypeError, 'config must be a path', (None, 'aver', [TEACHER]), {}),
    (FileNotFoundError, "did you mean 'cifar100_short'?",
     (RESNET, 'aver'), dict(pool='cifar100')),
    (FileNotFoundError, 'pool', (RESNET, 'aver'), dict(pool='no/pool.py')),
    (ValueError, 'must have teachers=[', (RESNET, 'aver'),
     dict(pool=RESNET)),
    (FileNotFoundError, 'or mmpretrain::resnet/resnet152_8xb32_in1k.py',
     ('mmpretrain::resnet/resnet19_8xb32_in1k.py', 'aver', [TEACHER]), {}),
    (ValueError, "'mmnone' is not installed", ('mmnone::a/b.py', 'aver',
                                               [TEACHER]), {}),
    (FileNotFoundError, "config 'no.py' is not a file", ('no.py', 'aver',
                                                         [TEACHER]), {}),
    (ValueError, 'no train_dataloader and no train_cfg',
     ('mmkd_rl::_base_/models/cifar_resnet.py', 'aver', [TEACHER]), {}),
    (ValueError, 'has no "model', ('mmkd_rl::_base_/demo_digits.py', 'aver',
                                   [TEACHER]), {}),
    (ValueError, 'it takes no terms', (RESNET, 'knowledge_flow', [TEACHER]),
     dict(terms=[dict(type='KDLoss')]))])
def test_bad_input(error, message, arguments, options):
    with pytest.raises(error) as raised:
        mmkd_rl.distill(*arguments, **options)
    assert message in str(raised.value)


def test_what_is_distilled_already(teachers, tmp_path):
    cfg = config(tmp_path, 'twice', distiller(toy_teachers(tmp_path)))
    with pytest.raises(ValueError, match='distilled already'):
        mmkd_rl.distill(cfg, 'aver', teachers)


def test_a_pool_of_another_data_set(plain):
    """Its teachers have other classes; the error is raised when the model is
    built."""
    cfg = mmkd_rl.distill(plain, 'aver', [
        'r=mmkd_rl::cifar100/teachers/resnet14_1xb128-3e_cifar100.py:'
        'untrained'], probe_size=32)
    cfg.model.student = classifier(8, hidden=6)
    cfg.model.student['backbone'] = dict(type='mmkd_rl.CifarResNet', depth=8)
    cfg.model.student['head']['in_channels'] = 64
    with pytest.raises(ValueError, match="'r' has 100 classes and the "
                                         'student 5'):
        built(cfg)


@pytest.mark.parametrize('arguments, message', [
    (['--teacher', 'a=b.py:c.pth'], '--distill STRATEGY, which is missing'),
    (['--distill', 'mtkd-rl'], "unknown; did you mean 'mtkd_rl'"),
    (['--distill', 'aver', '--teacher', 'a'], 'has no "="'),
    (['--distill', 'aver', '--pool', 'cifar100_table1:wrn'],
     "has no teacher 'wrn'; it has regnety-400mf"),
    (['--distill', 'aver', '--teacher', TEACHER, '--term', 'KDLoss', 'T'],
     "'T' is not of the form OPTION=VALUE"),
    (['--distill', 'aver', '--teacher', TEACHER, '--term', 'KDLos'],
     "'KDLos'")])
def test_bad_arguments_of_the_command(plain, monkeypatch, capfd, tmp_path,
                                      arguments, message):
    """One message, exit code 2, and nothing is trained."""
    monkeypatch.chdir(tmp_path)
    code, text = in_process(monkeypatch, capfd, 'train.py', plain, *arguments)
    assert code == 2 and message in text.split('ERROR: ')[1], text
    assert 'Traceback' not in text


def test_what_was_an_option_of_the_plain_config(plain, teachers):
    """The message says that model.x is now model.student.x."""
    cfg = mmkd_rl.distill(plain, 'aver', teachers, probe_size=4)
    cfg.merge_from_dict({'model.backbone.width': 3})
    with pytest.raises(TypeError, match=r"^model\.backbone: this is the stude"
                       r"nt's; write model\.student\.backbone"):
        built(cfg)


@pytest.mark.parametrize('error, message, options', [
    (TypeError, "terms must be a list.*'KDLoss'", dict(terms='KDLoss')),
    (TypeError, 'terms must be a list', dict(terms=['KDLoss'])),
    (TypeError, 'terms must be a list', dict(terms=dict(type='KDLoss'))),
    (TypeError, 'teachers must be a list.*None', dict(teachers=None)),
    (TypeError, 'teachers must be a list', dict(teachers='a=b.py:c.pth')),
    (TypeError, 'teachers must be a list', dict(teachers=dict(name='a'))),
    (ValueError, "strategy '' is unknown", dict(strategy='mtkd_rl+'))])
def test_what_python_can_give(plain, error, message, options):
    with pytest.raises(error, match=message):
        mmkd_rl.distill(plain, **{**dict(strategy='aver', teachers=[TEACHER]),
                                  **options})


def test_files_that_hold_something_else(plain, tmp_path):
    """A file with a string as teachers of a pool, or as a strategy's part."""
    pool = tmp_path / 'pool.py'
    pool.write_text(f'teachers = [{TEACHER!r}]')
    assert mmkd_rl.distill(plain, 'aver', pool=pool).model.teachers[0] == \
        recipes.parse_teacher(TEACHER)
    strategy = tmp_path / 'mine.py'
    strategy.write_text("weighting = 'CAMKD'")
    with pytest.raises(ValueError, match=r'weighting must be a dict such as '
                       r"dict\(type='CAMKD'\)"):
        mmkd_rl.distill(plain, str(strategy), [TEACHER])


@pytest.mark.parametrize('change, message', [
    (dict(probe_size='big'), "model.probe_size must be .*'big'"),
    (dict(probe_size=-3), 'model.probe_size must be .*-3'),
    (dict(probe_size=()), r'model.probe_size must be .*\(\)'),
    (dict(taps='backbone'), "model.taps must be a dict .*'backbone'"),
    (dict(projector=dict(act='maybe')), "model.projector.act must be True or "
     "False, got 'maybe'"),
    (dict(taps=dict(feature=dict(path='head.fc', index=7))),
     'index=7, but the output of .* is one Tensor'),
    (dict(teachers=[dict(name='a', config=classifier(), checkpoint='untrained',
                         input_size='32')]), "input_size must be .*'32'"),
    (dict(teachers=[dict(name='a', config=classifier(), checkpoint='untrained',
                         taps='backbone')]), 'taps must be dict')])
def test_values_of_the_wrong_kind(tmp_path, change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        MODELS.build({**distiller(toy_teachers(tmp_path)), **change})


def test_a_resumed_run_has_its_teachers(plain, teachers, monkeypatch, capfd,
                                        tmp_path):
    """Projectors and agents depend on the teachers' order."""
    def run(strategy, order, *more, epochs=1):
        return in_process(
            monkeypatch, capfd, 'train.py', plain, '--distill', strategy,
            *(w for t in order for w in ('--teacher', t)), '--work-dir',
            tmp_path / 'run', *more,
            options=['model.probe_size=4', f'train_cfg.max_epochs={epochs}'])

    assert run('aver', teachers)[0] == 0
    code, text = run('aver', teachers[::-1], '--resume', epochs=2)
    assert code == 2 and "teachers=['t0', 't1'], but the config " \
        "has ['t1', 't0']" in text
    code, text = run('ca_mkd', teachers, '--resume', epochs=2)
    assert code == 2 and "strategy='AverageWeighting', but the config " \
        "has 'CAMKD'" in text
    assert run('aver', teachers, '--resume', epochs=2)[0] == 0


def test_files_that_are_no_checkpoints(plain, teachers, monkeypatch, capfd,
                                       tmp_path):
    """A config file instead of a checkpoint, for all options."""
    monkeypatch.chdir(tmp_path)
    bad = teachers[0].rpartition(':')[0] + f':{plain}'
    for arguments in (['test.py', plain, plain],
                      ['train.py', plain, '--resume', plain],
                      ['train.py', plain, '--distill', 'aver', '--teacher',
                       bad]):
        code, text = in_process(monkeypatch, capfd, *arguments)
        assert code == 2 and 'plain.py' in text.split('ERROR: ')[1], text
        assert 'Traceback' not in text


def test_an_option_without_a_value(plain, monkeypatch, capfd):
    code, text = in_process(monkeypatch, capfd, 'train.py', plain,
                            options=['train_cfg.max_epochs'])
    assert code == 2
    assert "'train_cfg.max_epochs' is not of the form KEY=VALUE" in text
