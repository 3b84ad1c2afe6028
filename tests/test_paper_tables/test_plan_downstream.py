"""Plans of detectors and segmentors that start from a backbone of the plan."""

from __future__ import annotations

import pytest

from paper_tables import images, runs, scales
from paper_tables.cells import BOX_AP
from paper_tables.data import check_data
from paper_tables.plan import Planner
from paper_tables.tables import TABLES
from tests.test_paper_tables.test_plan import finish


def downstream_plan(root, table='table4', scale='tiny', students=None,
                    methods=None, seeds=(0, ), **kwargs):
    found = TABLES[table]
    return Planner(scales.find_scale(found, scale), root, **kwargs).plan(
        found, students, methods, seeds)


def test_a_detector_starts_from_a_run_of_the_plan(tmp_path):
    """Both rows have the same config; what differs is the backbone, which is
    trained once for all seeds."""
    made = downstream_plan(tmp_path, students=['mask-rcnn-r18'], seeds=(0, 1))
    names = [run.name.split(' [')[0] for run in made.runs.values()]
    assert names[3:] == [
        'baseline resnet18 seed 0', 'mtkd-rl resnet18 seed 0',
        'baseline mask-rcnn-r18 seed 0', 'mtkd-rl mask-rcnn-r18 seed 0',
        'baseline mask-rcnn-r18 seed 1', 'mtkd-rl mask-rcnn-r18 seed 1']
    assert all(name.startswith('teacher') for name in names[:3])
    starts = {}
    for cell, (one, two) in made.cells:
        start, = one.needs
        assert two.needs == [start]
        assert one.start == two.start == str(made.runs[start].output)
        one.folder.mkdir(parents=True)
        command = one.prepare()
        at = command.index('--backbone-from')
        assert command[at + 1] == one.start
        starts[cell.method] = one
    base, ours = starts['baseline'], starts['mtkd-rl']
    assert base.config.to_dict() == ours.config.to_dict()
    assert base.identity != ours.identity
    assert len(made.runs[ours.needs[0]].needs) == 3
    assert base.config.model.backbone.depth == 18
    assert images.folders(base.config) == [f'{tmp_path}/tiny/data/coco/']


def test_what_a_finished_detector_needed_is_not_needed(tmp_path):
    made = downstream_plan(tmp_path, students=['retinanet-r34'])
    (_, (base, )), (_, (ours, )) = made.cells
    assert len(made.needed()) == len(made.runs) == 7
    finish(ours)
    assert {r.name for r in made.needed()} == {
        base.name, ours.name, *base.needs}
    start = made.runs[base.needs[0]]
    finish(start)
    assert start.done() and start in made.needed()
    start.output.unlink()
    assert start.done() is None


def test_both_transfers_share_their_backbones(tmp_path):
    first, second = (downstream_plan(tmp_path, f'transfer-{data}', 'short')
                     for data in ('bccd', 'camvid'))
    shared = {r.name for r in first.runs.values()} & {
        r.name for r in second.runs.values()}
    assert len(shared) == 6  # two teachers, four backbones
    random = first.cells[0][1][0]
    assert not random.needs and not random.start


def test_a_segmentor_counts_iterations(tmp_path):
    made = downstream_plan(tmp_path, 'transfer-camvid', 'short',
                           methods=['none'])
    (_, (run, )), = made.cells
    assert run.output.name == 'iter_300.pth'
    assert run.config.default_hooks.checkpoint.interval == 100
    assert not run.config.default_hooks.checkpoint.by_epoch
    log = run.folder / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('{"mIoU": 20.0, "step": 100}\n{"mIoU": 30.5, "step": 200}')
    for step in (100, 200, 300):
        (run.folder / f'iter_{step}.pth').write_text('')
    assert run.resumes_from().name == 'iter_200.pth'
    with pytest.raises(FileNotFoundError, match='no mIoU of iteration 300'):
        run.ended(1., 1., 1, True)
    log.write_text(log.read_text() + '\n{"mIoU": 30.0, "step": 300}')
    assert run.ended(1., 1., 1, True) == \
        '30.00 % (best 30.50 in iteration 200)'
    assert [p.name for p in run.folder.glob('*.pth')] == ['iter_300.pth']


def test_box_ap_is_a_percentage(tmp_path):
    log = tmp_path / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('{"coco/bbox_mAP": 0.345, "step": 2}')
    assert runs.read_curve(tmp_path, BOX_AP) == {2: 34.5}


def test_public_teachers_of_a_backbone_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match='checkpoints/resnet50.pth'):
        downstream_plan(tmp_path, scale='paper', methods=['mtkd-rl'])
    made = downstream_plan(tmp_path, scale='paper', methods=['baseline'])
    assert {run.output.name for run in made.needed() if not run.lends} == {
        'epoch_24.pth'}
    with pytest.raises(FileNotFoundError, match='data/'):
        check_data(made)


def test_a_teacher_of_a_backbone_can_be_spoiled(tmp_path):
    made = downstream_plan(tmp_path, 'transfer-bccd', 'short',
                           methods=['aver', 'longer'],
                           spoil='resnet20')
    assert any('resnet20' in name and 'permuted' in name for name in made.runs)
    with pytest.raises(ValueError, match="no 'resnet9'.*resnet14"):
        downstream_plan(tmp_path, 'transfer-bccd', 'short', methods=['aver'],
                        spoil='resnet9')
