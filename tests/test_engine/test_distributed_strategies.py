"""Two processes with strategies other than MTKD-RL: all parameters, including
those of the strategy, stay the same in both."""

import torch

from tests.commands import two_processes
from tests.toy import distiller, toy_teachers

RUNS = dict(
    AMTMLKD=[],
    MMKD=[dict(type='MetaWeightingHook', interval=1)],
    CAMKD=[dict(type='TeacherCheckHook')])

#: Script of a process: all runs, one after the other.
WORKER = """
import sys
import torch
import mmkd_rl
from tests.test_engine.test_distributed_strategies import RUNS
from tests.toy import toy_runner
torch.distributed.init_process_group('gloo')
rank = torch.distributed.get_rank()
for name, hooks in RUNS.items():
    models = torch.load(f'{sys.argv[1]}/models.pth', weights_only=False)
    # 2 iterations of 8 images each
    runner = toy_runner(
        f'{sys.argv[1]}/{name}', models[name], epochs=1, hooks=hooks,
        launcher='pytorch',
        # A group that has been started and no device: as tools/train.py does.
        model_wrapper_cfg=dict(
            type='MMDistributedDataParallel', broadcast_buffers=False,
            device_ids=None))
    before = {
        k: v.clone() for k, v in runner.model.module.state_dict().items()}
    runner.train()
    assert runner.iter == 2
    model = runner.model.module
    learner = getattr(model.distillation.weighting, 'learner', None)
    torch.save(
        dict(
            before=before,
            after=model.state_dict(),
            networks=learner and learner.networks.state_dict(),
            updates=learner and learner.updates,
            weights=model.distillation.last_step.weights.logit),
        f'{sys.argv[1]}/{name}{rank}.pth')
torch.distributed.destroy_process_group()
"""


def test_two_processes_stay_one(tmp_path):
    teachers = toy_teachers(tmp_path)
    torch.save({
        name: distiller(teachers, weighting=dict(type=name))
        for name in RUNS
    }, tmp_path / 'models.pth')
    two_processes('-c', WORKER, tmp_path)
    for name in RUNS:
        first, second = (
            torch.load(tmp_path / f'{name}{rank}.pth', weights_only=False)
            for rank in range(2))
        moved = 0
        for key, value in first['after'].items():
            if 'running_' in key:  # statistics of the batches of each process
                continue
            assert torch.equal(value, second['after'][key]), (name, key)
            assert value.isfinite().all(), (name, key)
            moved += not torch.equal(value, first['before'][key])
        # both have trained, on different images
        assert moved > 5, name
        assert not torch.equal(first['weights'], second['weights']) or \
            name == 'MMKD'
        if name == 'AMTMLKD':
            assert {k for k in first['after'] if 'weighting.' in k}
        if name == 'MMKD':
            assert first['updates'] == second['updates'] == 2
            for key, value in first['networks'].items():
                assert torch.equal(value, second['networks'][key]), key
            assert first['networks']['logit.last.bias'].abs().max() > 0
            assert not torch.equal(first['weights'][0],
                                   torch.full((2, ), .5))
