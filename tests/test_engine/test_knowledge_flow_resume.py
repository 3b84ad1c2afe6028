"""A killed run with Knowledge Flow resumes bit for bit."""

import json

import pytest
import torch

from mmkd_rl.flow import flow_of
from tests.test_engine.test_resume import Killed, kill, same
from tests.toy import flow_classifier, toy_runner, toy_teachers


def run(work_dir, teachers, hook, lone=None, more=(), **kwargs):
    """Run four epochs of five iterations; the teachers' withdrawal starts at
    iteration 8, and from 14 on the student is alone."""
    model = flow_classifier(teachers, student_weight=.4)
    runner = toy_runner(
        work_dir, model, epochs=4, size=40, jitter=.3, validate=True,
        hooks=[dict(type='EMAHook', momentum=.1),
               dict(type='KnowledgeFlowHook', withdraw_from=.4,
                    independent_at=.7, interval=3, kl_weight=1.,
                    handover_weight=1.,
                    validate='both', **hook),
               dict(type='RandomStateHook'),
               dict(type='StudentExportHook'), *more],
        randomness=dict(seed=3),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=.2, momentum=.9)), **kwargs)
    if lone is not None:
        # Below the threshold: t1 is retired at the first check.
        for fusion in flow_of(runner.model).fusions:
            fusion.logits.data[2] = lone
    return runner


def accuracies(folder):
    """Accuracies, alone and fused, of the last epoch."""
    path = max(folder.glob('*/vis_data/scalars.json'))
    row = json.loads(path.read_text().splitlines()[-1])
    return {n: v for n, v in row.items() if 'accuracy' in n}


PICTURE = [dict(type='FlowVisualizationHook', interval=3)]


@pytest.mark.parametrize('old, lone, killed, more', [
    ('previous', None, 7, ()),
    ('average', -9., 7, ()),
    ('previous', -9., 12, PICTURE),
    ('average', None, 12, ()),
    ('previous', -9., 18, ()),
], ids=['before', 'before, one left', 'meanwhile, one left', 'meanwhile',
        'alone'])
def test_killed_and_resumed(tmp_path, old, lone, killed, more):
    teachers, hook = toy_teachers(tmp_path), dict(old=old)
    whole = run(tmp_path / 'a', teachers, hook, lone, more)
    whole.train()
    with pytest.raises(Killed):
        run(tmp_path / 'b', teachers, hook, lone, more,
            call=(kill, killed)).train()
    epoch = killed // 5
    saved = torch.load(tmp_path / 'b' / f'epoch_{epoch}.pth',
                       weights_only=False)
    assert ('mmkd_rl_knowledge_flow' in saved) == (killed < 15)
    # EMAHook saves the averaged weights under this name
    assert saved['state_dict']['backbone.knowledge_flow.active'].tolist() \
        == ([True, lone is None] if killed < 15 else [False, False])
    torch.rand(17)
    resumed = run(tmp_path / 'b', teachers, hook, more=more,
                  resume=True)
    resumed.train()
    assert flow_of(resumed.model).independent
    same(*(r.model.state_dict() for r in (whole, resumed)))
    same(*(r.optim_wrapper.state_dict() for r in (whole, resumed)))
    for name in ('student.pth', 'epoch_4.pth'):
        same(*(torch.load(tmp_path / f / name, weights_only=False)[
            'state_dict'] for f in 'ab'))
    same(accuracies(tmp_path / 'a'), accuracies(tmp_path / 'b'))
    if more:
        same(*(json.loads((tmp_path / f / 'knowledge_flow.json').read_text())
               for f in 'ab'))


def test_theta_old_matters(tmp_path):
    """The result depends on theta_old; otherwise the tests above could not
    fail."""
    teachers = toy_teachers(tmp_path)
    whole = run(tmp_path / 'a', teachers, dict(old='average'))
    whole.train()
    path = tmp_path / 'a' / 'epoch_2.pth'
    content = torch.load(path, weights_only=False)
    del content['mmkd_rl_knowledge_flow']
    torch.save(content, path)
    other = run(tmp_path / 'b', teachers, dict(old='average'), resume=True,
                load_from=str(path))
    other.train()
    assert not torch.equal(other.model.backbone.conv.weight,
                           whole.model.backbone.conv.weight)


def test_a_resumed_run_has_its_teachers(tmp_path):
    """Links depend on the teachers' order, which checkpoints contain.
    Checkpoints of earlier versions do not contain it, and can be resumed."""
    teachers = toy_teachers(tmp_path)
    run(tmp_path / 'a', teachers, {}).train()
    other = run(tmp_path / 'a', teachers[::-1], {}, resume=True)
    with pytest.raises(ValueError, match=r"teachers=\['t0', 't1'\], but "
                       r"the config has \['t1', 't0'\]"):
        other.train()
    path = tmp_path / 'a' / 'epoch_4.pth'
    content = torch.load(path, weights_only=False)
    del content['mmkd_rl_flow_teachers']
    torch.save(content, path)
    run(tmp_path / 'a', teachers, {}, resume=True).train()
