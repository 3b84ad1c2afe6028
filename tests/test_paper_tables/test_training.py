"""Real runs on the embedded digits, with and without interruption."""

from __future__ import annotations

import os
import runpy
import signal
import sys
import time
from pathlib import Path

import torch

from paper_tables.data import check_data, write_tiny_data
from paper_tables.plan import Planner
from paper_tables.scales import SCALES, find_scale
from paper_tables.tables import TABLES

TOOL = Path(__file__).parents[2] / 'tools' / 'train.py'


def start(run):
    """Start the run's command in a fork, which has all imports already."""
    run.folder.mkdir(parents=True, exist_ok=True)
    command = run.prepare()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        # Not the file descriptors: pytest has put its own in sys.stdout.
        sys.stdout = sys.stderr = open(run.folder / 'log.txt', 'a', 1)
        sys.argv = command[1:]
        runpy.run_path(command[1], run_name='__main__')
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        os._exit(code)


def train(run):
    """Train to the end."""
    code = os.waitstatus_to_exitcode(os.waitpid(start(run), 0)[1])
    assert code == 0, (run.folder / 'log.txt').read_text()[-2000:]
    run.ended(1., 1., 1, True)
    return run.result()


def test_killed_and_resumed_is_the_same(tmp_path):
    """A student with MTKD-RL that is trained without interruption, and one
    that is killed in the second epoch and resumed, have the same accuracies
    and weights bit for bit; agent and history are resumed, too."""
    torch.set_num_threads(1)
    plan = Planner(SCALES['tiny'], tmp_path, tool=str(TOOL)).plan(
        TABLES['fig2'], None, ['teachers-1'], [0])
    (_, (whole, )), = plan.cells
    teacher = plan.runs[whole.needs[0]]
    train(teacher)
    assert teacher.done()
    expected = train(whole)
    assert [epoch for epoch, _ in expected.accuracy] == [1, 2]
    assert expected.weights == 'teacher_weights.json'

    cut = Planner(SCALES['tiny'], tmp_path, tool=str(TOOL)).plan(
        TABLES['fig2'], None, ['teachers-1'], [0]).cells[0][1][0]
    cut.folder = tmp_path / 'cut'
    cut.folder.mkdir()
    log = cut.folder / 'log.txt'
    log.touch()
    pid = start(cut)
    deadline = time.monotonic() + 300
    while 'Epoch(train) [2][1/4]' not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert cut.done() is None and not (cut.folder / 'epoch_2.pth').exists()
    assert cut.state() == 'resumes from epoch_1.pth'
    again = train(cut)
    assert again.accuracy == expected.accuracy
    assert again.identity == expected.identity

    def weights(run):
        return torch.load(run.folder / 'student.pth',
                          weights_only=True)['state_dict']

    ours, theirs = weights(cut), weights(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_detector_trains_from_the_backbone_of_its_plan(tmp_path):
    """Backbone, then detector, on tiny data. The frozen first layer of the
    detector is that of the backbone's checkpoint."""
    torch.set_num_threads(1)
    table = TABLES['table4']
    scale = find_scale(table, 'tiny')
    plan = Planner(scale, tmp_path, tool=str(TOOL)).plan(
        table, ['retinanet-r34'], ['baseline'], [0])
    write_tiny_data(plan, scale)
    check_data(plan)
    (_, (run, )), = plan.cells
    start = plan.runs[run.needs[0]]
    train(start)
    result = train(run)
    assert [epoch for epoch, _ in result.accuracy] == [1] and run.done()
    one, two = (torch.load(r.output, weights_only=False)['state_dict']
                for r in (start, run))
    assert torch.equal(one['backbone.conv1.weight'],
                       two['backbone.conv1.weight'])
    assert not torch.equal(one['backbone.layer4.0.conv1.weight'],
                           two['backbone.layer4.0.conv1.weight'])
