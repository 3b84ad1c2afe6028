"""Plan of a request: order, identity and sharing of runs, and messages."""

from __future__ import annotations

import json

import pytest
import torch
from mmengine.config import Config

from mmkd_rl.utils.configs import configs_of
from paper_tables import commands, images, runs, scales, sources
from paper_tables.data import check_data
from paper_tables.plan import Planner
from paper_tables.scales import SCALES
from paper_tables.tables import TABLES, find_table


def plan(root, table='table1', scale='tiny', methods=('aver', 'mtkd-rl'),
         seeds=(0, ), students=None, **kwargs):
    return Planner(SCALES[scale], root, **kwargs).plan(
        TABLES[table], students, methods, seeds)


def hooks(run):
    return {h.type.rpartition('.')[2]: h for h in run.config.custom_hooks}


def finish(run, last=50.):
    """Write the files of a finished run."""
    run.folder.mkdir(parents=True, exist_ok=True)
    run.output.write_text('')
    runs.write_json(
        run.folder / runs.RESULT,
        dict(identity=run.identity, seed=run.seed, accuracy=[[1, last]],
             last=last, best=last, best_epoch=1, seconds=7., cpu_seconds=6.,
             attempts=1))


def cell(method):
    """Cell of Table 1 for ResNet-56."""
    found, = TABLES['table1'].select(['resnet56'], [method])
    return found


def test_teachers_come_first_and_once(tmp_path):
    made = plan(tmp_path, seeds=(0, 1))
    names = [run.name.split(' [')[0] for run in made.runs.values()]
    assert names == [
        'teacher resnet14', 'teacher wrn10-2', 'teacher resnet20',
        'aver resnet8 seed 0', 'mtkd-rl resnet8 seed 0',
        'aver resnet8 seed 1', 'mtkd-rl resnet8 seed 1'
    ]
    order = list(made.runs)
    for run in made.runs.values():
        assert all(order.index(n) < order.index(run.name) for n in run.needs)
        assert len(run.needs) == (0 if run.is_teacher else 3)


def test_losses_strategy_and_hooks_stay(tmp_path):
    (_, (run, )), = plan(tmp_path, methods=['mtkd-rl']).cells
    leaf = commands.read(cell('mtkd-rl'))
    for key in ('logit_loss', 'feature_loss', 'weighting'):
        assert run.config.model[key] == leaf.model[key]
    assert run.config.model.student.backbone.depth == 8
    assert run.config.train_dataloader.dataset.type == 'mmkd_rl.DigitsDataset'
    assert {'AgentAlternationHook', 'WeightVisualizationHook',
            'RandomStateHook', 'TeacherCheckHook'} <= set(hooks(run))
    assert hooks(run)['WeightVisualizationHook'].interval == 1


def test_paper_scale_is_the_config(tmp_path):
    (_, (run, )), = plan(tmp_path, scale='paper', methods=['aver'],
                         students=['resnet56']).cells
    leaf = commands.read(cell('aver'))
    for key in ('train_dataloader', 'optim_wrapper', 'param_scheduler',
                'train_cfg', 'val_dataloader'):
        assert run.config[key] == leaf[key], key
    assert run.epochs == 240 and len(run.needs) == len(leaf.model.teachers)
    assert [t.name for t in run.config.model.teachers] == \
        [t.name for t in leaf.model.teachers]


def test_identity_is_what_is_run(tmp_path):
    """Paths do not change the identity; the seed, a loss and a teacher do."""
    one = list(plan(tmp_path / 'a', scale='short').runs.values())
    moved = list(plan(tmp_path / 'b', scale='short',
                      data_root='elsewhere').runs.values())
    assert [r.identity for r in one] == [r.identity for r in moved]
    assert len({r.identity for r in one}) == len(one)
    spoiled = plan(tmp_path / 'a', scale='short', spoil='wrn10-2')
    assert not {r.identity for r in one if not r.is_teacher} & \
        set(r.identity for r in spoiled.runs.values())
    # Two of the three teachers are the same.
    assert len(set(plan(tmp_path / 'a', scale='short').runs)
               & set(spoiled.runs)) == 2


def test_another_config_is_not_taken_for_done(tmp_path):
    (_, (run, )), = plan(tmp_path, methods=['aver']).cells
    finish(run)
    assert run.done() == '50.00 % (best 50.00 in epoch 1)'
    run.identity = 'another'
    assert run.done() is None


def test_teachers_of_finished_students_are_not_needed(tmp_path):
    made = plan(tmp_path, methods=['aver'])
    assert len(made.needed()) == 4
    finish(made.cells[0][1][0])
    assert [r.is_teacher for r in made.needed()] == [False]
    # But a teacher whose weights were deleted is not done.
    teacher = next(iter(made.runs.values()))
    finish(teacher)
    assert teacher.done()
    teacher.output.unlink()
    assert teacher.done() is None


def test_tables_share_the_runs_of_equal_cells(tmp_path):
    made = plan(tmp_path, 'fig2', methods=['mtkd-rl', 'alpha-1', 'teachers-4'])
    assert len({r.identity for _, (r, ) in made.cells}) == 1
    assert len(made.runs) == 4
    (_, (run, )), = plan(tmp_path, methods=['mtkd-rl'], students=[
        'shufflenetv2-x1.0']).cells
    finish(run)
    (_, (same, )), = plan(tmp_path, 'fig2', methods=['alpha-1']).cells
    assert same.done() and same.folder == run.folder


@pytest.mark.parametrize('scale', ['tiny', 'short'])
def test_small_scales_share_equal_cells_of_both_data_sets(tmp_path, scale):
    """One config writes a type with its scope, the other without."""
    one, other = (
        plan(tmp_path, table, scale, methods=['mtkd-rl']).cells[0][1][0]
        for table in ('table1', 'table7'))
    assert one.identity == other.identity


def test_smaller_pools_and_their_note(tmp_path):
    made = plan(tmp_path, 'fig2', methods=['teachers-1', 'teachers-4'])
    pools = [[t.name for t in r.config.model.teachers]
             for _, (r, ) in made.cells]
    assert pools == [['resnet14'], ['resnet14', 'wrn10-2', 'resnet20']]
    assert len(made.notes) == 1 and '4 teachers, this one 3' in made.notes[0]


def test_spoiled_teacher_learns_permuted_labels(tmp_path):
    made = plan(tmp_path, methods=['aver'], spoil='wrn10-2', scale='short')
    teacher = made.runs[next(n for n in made.runs if 'permuted' in n)]
    steps = [s.type for s in
             teacher.config.train_dataloader.dataset.pipeline]
    assert steps[-2:] == ['mmkd_rl.PermuteLabels', 'mmpretrain.PackInputs']
    assert 'PermuteLabels' not in str(teacher.config.val_dataloader)
    (_, (run, )), = made.cells
    assert 'PermuteLabels' not in str(run.config.train_dataloader)
    assert hooks(run)['WeightVisualizationHook'].mark == {
        'wrn10-2': 'labels permuted'}
    assert str(teacher.output) in run.checkpoints


def test_given_weights_are_used(tmp_path):
    file = tmp_path / 'w.pth'
    torch.save(dict(weight=torch.zeros(1)), file)
    made = plan(tmp_path, methods=['aver'], weights={'wrn10-2': str(file)})
    (_, (run, )), = made.cells
    assert str(file) in run.checkpoints and len(run.needs) == 2
    torch.save(dict(weight=torch.ones(1)), file)
    other = plan(tmp_path, methods=['aver'], weights={'wrn10-2': str(file)})
    assert other.cells[0][1][0].identity != run.identity


@pytest.mark.parametrize('content, message', [
    ('weights', "--teacher wrn10-2='.*' is not a PyTorch checkpoint"),
    ([], "--teacher wrn10-2='.*' holds no weights"),
])
def test_given_weights_are_looked_into(tmp_path, content, message):
    """Files of weights are checked when a run is planned."""
    file = tmp_path / 'w.pth'
    if isinstance(content, str):
        file.write_text(content)
    else:
        torch.save(content, file)
    with pytest.raises(ValueError, match=message):
        plan(tmp_path, weights={'wrn10-2': str(file)})


def test_public_teachers_are_not_trained(tmp_path, monkeypatch):
    """One message names all missing files; files that exist are used."""
    monkeypatch.chdir(tmp_path)

    def made(methods=('aver', 'mtkd-rl'), **kwargs):
        return plan(tmp_path, 'table3', 'paper', students=['deit-tiny'],
                    methods=methods, **kwargs)

    with pytest.raises(FileNotFoundError) as error:
        made()
    text = str(error.value)
    names = ['cait-s24', 'deit-base', 'deit-small']
    for name in names:
        assert text.count(f'checkpoints/{name}.pth') == 1
        assert f'configs/imagenet/teachers/{name}_imagenet.py' in text
    assert 'convert.py' in text and '--teacher NAME=FILE' in text
    (tmp_path / 'checkpoints').mkdir()
    files = {}
    for name in names:
        files[name] = f'checkpoints/{name}.pth'
        torch.save(dict(weight=torch.zeros(1)), files[name])
    for _, (run, ) in made().cells:
        assert not run.needs
        assert set(run.checkpoints) == set(files.values())
    # One file is in another folder.
    (tmp_path / files['deit-base']).rename('mine.pth')
    (_, (run, )), = made(methods=['aver'],
                         weights={'deit-base': 'mine.pth'}).cells
    assert 'mine.pth' in run.checkpoints and not run.needs
    # A spoiled teacher must be trained.
    spoiled = made(methods=['aver'], spoil='deit-base')
    assert len(spoiled.cells[0][1][0].needs) == 1


def test_expected_time_at_the_papers_scale(tmp_path):
    """Table 6(c) has students on CIFAR-100, and no MMKD."""
    made = plan(tmp_path, scale='paper', methods=['mtkd-rl', 'mmkd'],
                students=['resnet56'])
    expected = {r.name.split()[0]: r.expected for r in made.runs.values()}
    assert expected == {'teacher': None, 'mtkd-rl': 47 * 240,
                        'mmkd': 54 * 240}


def test_data_root_reaches_every_data_set(tmp_path):
    made = plan(tmp_path, scale='short', data_root=str(tmp_path / 'images'))
    for run in made.runs.values():
        assert set(images.folders(run.config)) == {
            str(tmp_path / 'images' / kind) for kind in ('train', 'test')}
    with pytest.raises(FileNotFoundError, match='--data-root'):
        check_data(made)
    for kind in ('train', 'test'):
        (tmp_path / 'images' / kind / 'apple').mkdir(parents=True)
    check_data(made)
    check_data(plan(tmp_path, scale='tiny'))  # needs none


def test_expected_time_is_learned(tmp_path):
    made = plan(tmp_path, methods=['aver'], seeds=(0, 1))
    first, second = made.cells[0][1]
    assert first.expected == second.expected == 9.
    finish(first)
    again = plan(tmp_path, methods=['aver'], seeds=(0, 1))
    assert again.cells[0][1][1].expected == 7.


@pytest.mark.parametrize('kwargs, message', [
    (dict(methods=['mtkdrl']), "no 'mtkdrl'.*near: mtkd-rl"),
    (dict(students=['resnet65']), "no 'resnet65'.*near: resnet56"),
    (dict(spoil='resnet15'), "no 'resnet15'.*near: resnet14"),
    (dict(weights={'resnet1': __file__}), "--teacher.*no 'resnet1'"),
])
def test_unknown_names(tmp_path, kwargs, message):
    with pytest.raises(ValueError, match=message):
        plan(tmp_path, **kwargs)


def test_unknown_table_and_file(tmp_path):
    with pytest.raises(ValueError, match="no 'table8'.*near: table"):
        find_table('table8')
    with pytest.raises(FileNotFoundError, match='wrn10-2=nowhere'):
        plan(tmp_path, weights={'wrn10-2': 'nowhere'})
    with pytest.raises(FileNotFoundError, match='no such config'):
        commands.load('cifar100/none.py')


def test_tables_say_what_the_paper_says():
    """The mean gains in the paper's text follow from the cells."""
    table = TABLES['table1']
    cells = {(c.student, c.method): c.mean for c in table.cells}

    def gain(a, b):
        return sum(cells[s, a] - cells[s, b]
                   for s in table.students) / len(table.students)

    assert gain('aver-kd', 'baseline') == pytest.approx(1.98, abs=.01)
    assert gain('aver', 'aver-kd') == pytest.approx(.68, abs=.01)
    assert gain('mtkd-rl', 'ca-mkd') == pytest.approx(.31, abs=.01)
    assert gain('mtkd-rl', 'mmkd') == pytest.approx(.33, abs=.01)
    for name, student, points in (('table2', 'resnet18', 2.47),
                                  ('table2', 'resnet34', 3.13),
                                  ('table3', 'deit-tiny', 2.91),
                                  ('table3', 'cait-xxs24', 1.90)):
        cells = {(c.student, c.method): c.mean for c in TABLES[name].cells}
        assert cells[student, 'mtkd-rl'] - cells[student, 'baseline'] == \
            pytest.approx(points)


def test_configs_of_the_tables_exist():
    missing = []
    for table in TABLES.values():
        if table.data == 'CIFAR-100':
            for cell in table.cells:
                found = list(configs_of('mmkd_rl').glob(cell.config))
                missing += [] if len(found) == 1 else [cell.config]
    assert not missing


def test_broken_records_count_as_nothing(tmp_path):
    (tmp_path / runs.RESULT).write_text('{"identity": ')
    (tmp_path / runs.TIMES).write_text(json.dumps(dict(hours=1)))
    assert runs.read_result(tmp_path, 'x') is None
    assert runs.read_times(tmp_path) == runs.Times()


def test_resume_point_needs_the_accuracy(tmp_path):
    """A run that was killed between checkpoint 2 and its validation resumes
    from checkpoint 1."""
    every, third = runs.Length(3), runs.Length(3, val_interval=3)
    assert runs.resume_point(tmp_path, every) is None
    log = tmp_path / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('{"loss": 1.0, "step": 4}\n'
                   '{"accuracy/top1": 40.0, "step": 1}\n{"accuracy/to')
    for epoch in (1, 2):
        (tmp_path / f'epoch_{epoch}.pth').write_text('')
    assert runs.resume_point(tmp_path, every).name == 'epoch_1.pth'
    # With a validation every third epoch none is missing at epoch 2.
    assert runs.resume_point(tmp_path, third).name == 'epoch_2.pth'
    later = tmp_path / '20260101_000100' / 'vis_data' / 'scalars.json'
    later.parent.mkdir(parents=True)
    later.write_text('{"accuracy/top1": 50.0, "step": 2}\n')
    assert runs.resume_point(tmp_path, every).name == 'epoch_2.pth'
    assert runs.read_curve(tmp_path) == {1: 40., 2: 50.}
    with pytest.raises(FileNotFoundError, match='checkpoint of epoch 3'):
        runs.collect(tmp_path, 'x', 0, every)
    result = runs.collect(tmp_path, 'x', 0, runs.Length(2))
    assert (result.last, result.best, result.best_epoch) == (50., 50., 2)
    assert [p.name for p in tmp_path.glob('*.pth')] == ['epoch_2.pth']


# ---- Knowledge Flow ------------------------------------------------------


def flow_plan(root, table='kf-halves', scale=None, methods=None, seeds=(0, ),
              **kwargs):
    found = TABLES[table]
    return Planner(scales.find_scale(found, scale), root, **kwargs).plan(
        found, None, methods, seeds)


def test_teachers_of_a_flow_and_of_a_beginning_are_one_run(tmp_path):
    """A network that is a teacher of one student and the start of another is
    trained once, before both."""
    made = flow_plan(tmp_path, methods=['kf-both', 'finetune-classes'])
    names = [run.name.split(' [')[0] for run in made.runs.values()]
    assert names == [
        'teacher resnet14_5e_first-half',
        'teacher resnet14_5e_first-half_rotations',
        'finetune-classes second-half seed 0', 'kf-both second-half seed 0']
    teacher = next(iter(made.runs.values()))
    for _, (run, ) in made.cells:
        run.folder.mkdir(parents=True)
        run.prepare()
        backbone = Config.fromfile(run.folder / runs.CONFIG).model.backbone
        files = [s.checkpoint for s in
                 backbone.get('teachers') or [backbone.init_cfg]]
        assert files == run.checkpoints and str(teacher.output) in files
        assert {'FlowVisualizationHook', 'RandomStateHook'} <= set(
            hooks(run)) or 'finetune' in run.name


def test_flows_that_differ_are_different_runs(tmp_path):
    made = flow_plan(tmp_path)
    assert len({r.identity for r in made.runs.values()}) == len(made.runs)
    assert {len(r.needs) for _, (r, ) in made.cells} == {0, 1, 2}
    untrained = next(r for c, (r, ) in made.cells
                     if c.method == 'kf-untrained')
    assert not untrained.needs and untrained.checkpoints == ['untrained'] * 2
    assert all(r.expected for r in made.runs.values())
    assert 'cifar100' in images.folders(
        next(iter(made.runs.values())).config)[0]


def test_each_network_is_made_smaller(tmp_path):
    made = flow_plan(tmp_path, 'kf-table3', 'tiny')
    for run in made.runs.values():
        assert run.epochs == 2 and run.config.model.head.num_classes == 10
        assert run.config.train_dataloader.dataset.type.endswith('Digits'
                                                                 'Dataset')
    whole = flow_plan(tmp_path, 'kf-table3')
    assert {r.epochs for r in whole.runs.values()} == {300, 40}
    moved = flow_plan(tmp_path, 'kf-table3', data_root='elsewhere')
    for run in moved.runs.values():
        assert set(images.folders(run.config)) == {'elsewhere'}
    assert list(moved.runs) == list(whole.runs)


def test_flow_teachers_are_named_by_pool_or_config(tmp_path):
    file = tmp_path / 'w.pth'
    torch.save(dict(weight=torch.zeros(1)), file)
    for name in ('classes', 'resnet14_5e_first-half'):
        made = flow_plan(tmp_path, methods=['kf-classes'],
                         weights={name: str(file)})
        assert made.cells[0][1][0].checkpoints == [str(file)]
    spoiled = flow_plan(tmp_path, methods=['kf-classes'], spoil='classes')
    assert 'resnet14_5e_first-half-permuted' in next(iter(spoiled.runs))


@pytest.mark.parametrize('table, kwargs, message', [
    ('kf-halves', dict(scale='paper'), "no 'paper'.*it has short, tiny"),
    ('kf-table3', dict(scale='short'), "no 'short'.*it has paper, tiny"),
    ('kf-halves', dict(spoil='class'), "--spoil: .*no 'class'.*near: classes"),
    ('kf-halves', dict(methods=['kf-bath']), "no 'kf-bath'.*near: kf-both"),
])
def test_wrong_requests_for_flows(tmp_path, table, kwargs, message):
    with pytest.raises(ValueError, match=message):
        flow_plan(tmp_path, table, **kwargs)


def test_a_beginning_without_a_config(tmp_path):
    with pytest.raises(FileNotFoundError, match='0 configs are called nothing'
                       '.py'):
        sources.origin(dict(type='Pretrained',
                           checkpoint='work_dirs/nothing/epoch_1.pth'))


def test_missing_files_of_torchvision(tmp_path):
    made = flow_plan(tmp_path, 'kf-table5', data_root=str(tmp_path / 'no'))
    with pytest.raises(FileNotFoundError, match="Put torchvision's files.*"
                       'configs/knowledge_flow/README.md'):
        check_data(made)
    made = flow_plan(tmp_path, data_root=str(tmp_path / 'no'))
    with pytest.raises(FileNotFoundError, match='class folders'):
        check_data(made)


def test_medium_stores_each_teacher_once(tmp_path):
    """For all methods and seeds, and apart for a spoiled teacher."""
    made = plan(tmp_path, 'table1', 'medium', ('baseline', 'aver', 'mtkd-rl'),
                seeds=(0, 1))
    folders = {}
    for _, of_cell in made.cells:
        for run in of_cell:
            teachers = run.config.model.get('teachers', [])
            for teacher in teachers:
                folders.setdefault(teacher.name, set()).add(
                    teacher.executor.folder)
            kind = run.config.train_dataloader.dataset.type
            assert kind.endswith('RepeatableViews') == bool(teachers)
    assert {name: len(of) for name, of in folders.items()} == {
        'resnet8x4': 1, 'wrn16-2': 1}
    spoiled = plan(tmp_path, 'table1', 'medium', ('aver', ),
                   spoil='wrn16-2').cells[0][1][0].config.model.teachers
    own = plan(tmp_path, 'table1', 'medium',
               ('aver', )).cells[0][1][0].config.model.teachers
    same = [a.executor.folder == b.executor.folder
            for a, b in zip(spoiled, own)]
    assert same == [True, False]
    # The folder is no part of the identity.
    elsewhere = plan(tmp_path / 'other', 'table1', 'medium', ('aver', ))
    assert elsewhere.cells[0][1][0].identity == plan(
        tmp_path, 'table1', 'medium', ('aver', )).cells[0][1][0].identity
