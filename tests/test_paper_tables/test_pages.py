"""Data of our results, and the tables made from them."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path

import pytest

from paper_tables import pages
from paper_tables.measured import MEASURED, command, measured
from paper_tables.scales import find_scale
from paper_tables.tables import TABLES


@pytest.fixture(scope='module')
def tool():
    path = Path(__file__).parents[2] / 'tools' / 'reproduce.py'
    spec = importlib.util.spec_from_file_location('reproduce', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('key', MEASURED, ids='-'.join)
def test_each_number_belongs_to_a_cell(tool, key):
    """The command that repeats the measurement has these cells."""
    name, scale, spoil = key
    table = TABLES[name]
    found = [measured(table, cell, scale, spoil) for cell in table.cells]
    assert {id(m) for m in found if m} == set(map(id, MEASURED[key].values()))
    words = shlex.split(command(table, scale, spoil))
    args = tool.parse_args(words[2:])
    cells = table.select(args.students, args.methods)
    assert {c.method for c in cells} == {m for _, m in MEASURED[key]}
    assert find_scale(table, args.scale).name == scale
    assert (args.spoil or '') == spoil


def test_what_a_spoiled_teacher_costs():
    """The loss is (26.01 + 25.90 - 24.03 - 23.99) / 2, for the two of three
    seeds that both have."""
    lines = pages.render_spoiled('table1', 'short', 'wrn10-2').splitlines()
    row = next(line for line in lines if 'AVER (KD+FitNet)' in line)
    assert [cell.strip() for cell in row.split('|')][2:6] == [
        '24.01', '24.03 23.99', '25.95', '1.95']


def test_ours_stands_beside_the_papers(tool, capsys):
    assert tool.main(['table1', '--list', '--students', 'resnet56',
                      '--methods', 'mtkd-rl', 'eb-kd']) == 0
    text = capsys.readouterr().out
    assert ('MTKD-RL: 75.35 ± 0.33; ours, --scale short (resnet8 in its '
            'place): 28.19 ± 0.42') in text
    assert 'EB-KD: not in the paper; ours' in text


def test_unknown_words_of_a_mark():
    with pytest.raises(KeyError, match='mesured'):
        pages.fill('<!-- mesured table1 short -->\n<!-- end -->')


def test_help_names_every_table(tool, capsys):
    with pytest.raises(SystemExit):
        tool.parse_args(['--help'])
    text = capsys.readouterr().out.replace('\n', ' ')
    for name in TABLES:
        assert name in text
