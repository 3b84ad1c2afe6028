"""Student and agent stay the same in two processes."""

import os
import subprocess
import sys

import torch

from tests.commands import ROOT, free_port
from tests.toy import distiller, toy_teachers


def test_two_processes(tmp_path):
    config = dict(
        default_scope='mmkd_rl',
        custom_imports=dict(imports=['mmkd_rl', 'tests.toy']),
        model=distiller(
            toy_teachers(tmp_path),
            weighting=dict(
                type='MTKDRL', agent=dict(learnable_balance=True))),
        train_dataloader=dict(
            batch_size=8,
            num_workers=0,
            # 23 images each, the last batch of 7; the sampler fills up
            dataset=dict(type='mmkd_rl.WorldDataset', size=45, jitter=.1),
            sampler=dict(type='DefaultSampler', shuffle=True)),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=.05, momentum=.9)),
        custom_hooks=[
            dict(type='AgentAlternationHook'),
            dict(type='RandomStateHook'),
            dict(type='TeacherCheckHook'),
            dict(type='WeightVisualizationHook', interval=2),
            dict(type='StudentExportHook'),
            dict(type='DumpHook', folder=str(tmp_path))
        ])
    path = tmp_path / 'config.py'
    path.write_text('\n'.join(f'{k} = {v!r}' for k, v in config.items()))
    work = tmp_path / 'work'
    done = subprocess.run(
        [
            sys.executable, '-m', 'torch.distributed.run',
            '--nproc_per_node=2', f'--master_port={free_port()}',
            str(ROOT / 'tools' / 'train.py'), str(path), '--work-dir',
            str(work), '--launcher', 'pytorch'
        ],
        cwd=ROOT,
        env=dict(
            os.environ,
            PYTHONPATH=str(ROOT),
            OMP_NUM_THREADS='1',
            CUDA_VISIBLE_DEVICES='',
            MPLBACKEND='Agg'),
        capture_output=True,
        text=True,
        timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (
        torch.load(tmp_path / f'rank{r}.pth', weights_only=True)
        for r in (0, 1))
    assert not (tmp_path / 'rank2.pth').exists()
    for name, value in first['agent']['policy'].items():
        assert torch.equal(value, second['agent']['policy'][name]), name
        assert value.isfinite().all(), name
    assert first['agent']['updates'] == second['agent']['updates'] == 3
    # both histories' states are in the statistics: 3 x 46 samples
    assert first['agent']['policy']['standardizer.count'] == 138
    # agents without training would be equal, too
    assert first['agent']['policy']['heads.0.weight'].abs().max() > 0
    for name, value in first['model'].items():
        assert torch.equal(value, second['model'][name]) or \
            'running_' in name, name  # statistics of own batches
    assert {p.name for p in work.iterdir()} >= {
        'epoch_3.pth', 'student.pth', 'teacher_weights.png'
    }
    checkpoint = torch.load(work / 'epoch_3.pth', weights_only=False)
    assert len(checkpoint['mmkd_rl_random_state']) == 2
