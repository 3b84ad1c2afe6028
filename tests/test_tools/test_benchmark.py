"""The benchmark measures what it says: parts add up, memory is counted."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def benchmark():
    path = ROOT / 'tools' / 'benchmark.py'
    spec = importlib.util.spec_from_file_location('benchmark', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_report_of_a_real_config(benchmark, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'cost.json'
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', [
        'benchmark.py', 'configs/demo/student_mtkd_rl.py', '--untrained',
        '--iters', '2', '--warmup', '1', '--json',
        str(out), '--cfg-options', 'train_dataloader.dataset.renderings=1',
        'train_dataloader.batch_size=8'
    ])
    assert benchmark.main() == 0
    figures = json.loads(out.read_text())
    assert {
        'student_s', 'teachers_s', 'floor_s', 'aver_s', 'strategy_s',
        'agent_s', 'peak_mb', 'strategy_over_floor', 'strategy_over_aver'
    } <= set(figures)
    # The agent's update is part of the strategy's step, and costs something.
    assert 0 < figures['agent_s'] < figures['strategy_s']
    memory = figures['peak_mb']
    # Three teachers weigh more than the student alone; the agent and its
    # history come on top of equal weights.
    assert 0 < memory['student'] < memory['aver'] < memory['strategy']
    assert figures['batch_size'] == 8
    assert 'strategy / floor' in capsys.readouterr().out


def test_peak_is_that_of_the_step(benchmark):
    """A step that holds two arrays of 4 MB at once peaks at 8 MB, though it
    allocates 12."""

    def step():
        a = torch.empty(2**20)
        b = a + 1
        del a
        c = b * 2
        return b, c

    if torch.cuda.is_available():
        pytest.skip('counts what lies on the CPU')
    peak = benchmark._peak(step)
    assert 8 * 2**20 <= peak < 8.5 * 2**20


def test_iters_must_be_positive(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', 'x.py', '--iters', '0'])
    with pytest.raises(SystemExit) as error:
        benchmark.parse_args()
    assert error.value.code == 2
    assert '--iters must be >= 1, got 0' in capsys.readouterr().err
