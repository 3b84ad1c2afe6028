"""Writes the tables of the papers' and our numbers in READMEs and docs.

``PYTHONPATH=tools python -m paper_tables.pages`` replaces the text between
``<!-- WORDS -->`` and ``<!-- end -->``; a test checks that pages and data
agree. WORDS are one of:

- ``TABLE``: the paper's numbers of a table, and ours if there are any;
- ``networks FOLDER``: the configs of a folder;
- ``measured TABLE SCALE [STUDENT]``: our results, with the paper's number of a
  student;
- ``spoiled TABLE SCALE TEACHER``: our results with a spoiled teacher;
- ``status PREFIX``: which tables were run, of those whose source begins with
  PREFIX;
- ``tables``: name, title and scales of all tables.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from paper_tables import commands
from paper_tables.cells import Cell, Table
from paper_tables.measured import MEASURED, Measured, command, measured
from paper_tables.tables import TABLES
from paper_tables.text import markdown, mean_std, plus_minus

PAGES = ('configs/cifar100/README.md', 'configs/downstream/README.md',
         'configs/imagenet/README.md', 'configs/knowledge_flow/README.md',
         'docs/reproduce.md', 'docs/results/cifar100.md',
         'docs/results/downstream.md',
         'docs/results/knowledge_flow.md', 'docs/results/tables.md')
#: Pages in docs/results that discuss the results of a table.
_DISCUSSED = {'table1': 'cifar100.md', 'fig2': 'cifar100.md',
              'transfer-bccd': 'downstream.md',
              'transfer-camvid': 'downstream.md',
              'kf-halves': 'knowledge_flow.md',
              'kf-digits': 'knowledge_flow.md#the-missing-digit'}


def fill(text: str) -> str:
    """Replace all generated tables in the text of a page."""
    def written(match: re.Match) -> str:
        kind, *words = match.group(1).split()
        if kind in TABLES:
            made = render(TABLES[kind])
        else:
            made = dict(measured=render_measured, spoiled=render_spoiled,
                        status=render_status, tables=render_tables,
                        networks=render_networks)[kind](*words)
        return f'<!-- {match.group(1)} -->\n\n{made}\n\n<!-- end -->'

    return re.sub(r'<!-- ([^>]+?) -->\n.*?<!-- end -->', written, text,
                  flags=re.DOTALL)


def render(table: Table) -> str:
    """A paper's table in Markdown, with our numbers in the last columns.

    Rows are methods and columns are students. If there is one student, or
    each has methods of its own, rows are cells with their options.
    """
    own = [scale for scale in table.scales
           if not table.as_is and (table.name, scale, '') in MEASURED]
    ours = [f'ours, `{scale}`' for scale in own]
    if table.as_is or len(table.students) == 1:
        return _changed(table, own, ours)
    rows = []
    for method, title in table.methods.items():
        cells = {c.student: c for c in table.cells if c.method == method}
        one = next(iter(cells.values()))
        strategy = f'`{one.strategy}`' if one.strategy else ''
        rows.append([title, strategy]
                    + [_paper(cells.get(s)) for s in table.students]
                    + [_mean(table, one, s) for s in own])
    head = ['method', '`--distill`', *table.students.values(), *ours]
    if not any(row[1] for row in rows):
        head, rows = [head[0], *head[2:]], [[r[0], *r[2:]] for r in rows]
    return markdown(head, rows, numbers=False)


def _changed(table: Table, own: list[str], ours: list[str]) -> str:
    """Table with one row for each cell and its options."""
    head = ['what', f'paper, {table.metric.title} %', *ours, 'options']
    rows = [[cell.title, _paper(cell), *(_mean(table, cell, s) for s in own),
             _options(cell)] for cell in table.cells]
    if table.as_is:
        head.insert(-1, 'config')
        for row, cell in zip(rows, table.cells):
            row.insert(-1, f'`{Path(cell.config).stem}`')
            if len(table.students) > 1:
                row[0] = f'{table.students[cell.student]}: {row[0]}'
    return markdown(head, rows, numbers=False)


def render_networks(folder: str) -> str:
    """Configs of a folder with the first sentences of their docstrings."""
    return markdown(['what', 'config'], [
        [re.match(r'r?"""(.*)\.', path.read_text())[1],  # type: ignore[index]
         f'[{path.stem}]({path.name})'] for path in sorted(
             Path('configs', folder).glob('*.py'))], numbers=False)


def render_measured(name: str, scale: str, student: str = '') -> str:
    """Our results of a table.

    Args:
        name: Name of the table.
        scale: Name of the scale.
        student: Student whose rows and numbers in the paper are shown; ``''``
            for a table without numbers in the paper.
    """
    table = TABLES[name]
    one = len({c.student for c in table.cells}) == 1 or not table.as_is
    rows, seen = [], set[str]()
    for cell in table.cells:
        runs = measured(table, cell, scale)
        if runs is None or (one and cell.method in seen) or \
                cell.student != (student or cell.student):
            continue
        seen.add(cell.method)
        title = cell.title if one else \
            f'{table.students[cell.student]}: {cell.title}'
        rows.append([title, plus_minus(*mean_std([*runs.accuracy.values()])),
                     _each(runs), _best(runs), _seconds(runs), _paper(cell)])
    head = ['method', 'mean', 'each seed', 'best, mean', 'CPU s a run',
            f'paper, {table.students.get(student)}']
    for i in (5, 4, 3):  # columns without a number
        if not any(row[i] for row in rows):
            head, rows = [*head[:i], *head[i + 1:]], [
                [*row[:i], *row[i + 1:]] for row in rows]
    return f'{_command(table, scale)}\n\n{markdown(head, rows)}'


def render_spoiled(name: str, scale: str, teacher: str) -> str:
    """Our results with a spoiled teacher beside those with unspoiled ones.

    Args:
        name: Name of the table.
        scale: Name of the scale.
        teacher: Name of the spoiled teacher.
    """
    table, rows = TABLES[name], {}
    for cell in table.cells:
        runs = measured(table, cell, scale, teacher)
        clean = measured(table, cell, scale)
        if runs is None or clean is None:
            continue
        after, before = (mean_std([m.accuracy[s] for s in runs.accuracy])[0]
                         or 0. for m in (runs, clean))
        rows[cell.method] = [
            cell.title, plus_minus(after), _each(runs), plus_minus(before),
            f'{before - after:.2f}']
    return f'{_command(table, scale, teacher)}\n\n' + markdown(
        ['method', 'spoiled', 'each seed', 'unspoiled, the same seeds',
         'loses'], [*rows.values()])


def render_status(*prefix: str) -> str:
    """Which tables were run, at which scales and with which seeds.

    Args:
        *prefix: First words of the source of the tables to list.
    """
    rows = []
    for table in TABLES.values():
        if not table.source.removeprefix('After ').startswith(
                ' '.join(prefix)):
            continue
        ran = [f'`{scale}`{" with " + spoil + " spoiled" if spoil else ""}: '
               f'{len({m for _, m in found})} of {len(table.methods)} rows, '
               f'seeds {_seeds(found)}'
               for (name, scale, spoil), found in MEASURED.items()
               if name == table.name]
        text = '; '.join(ran) or 'not yet'
        if table.name in _DISCUSSED:
            text += f' ([results]({_DISCUSSED[table.name]}))'
        where = table.source.partition('), ')[2]
        rows.append([f'{where}: {table.title}',
                     f'`tools/reproduce.py {table.name}`', text])
    return markdown(['table', 'command', 'run here'], rows, numbers=False)


def render_tables() -> str:
    """Name, title and scales of all tables."""
    return markdown(
        ['TABLE', 'what it shows', 'scales'],
        [[f'`{t.name}`', f'{t.source}: {t.title}', ', '.join(t.scales)]
         for t in TABLES.values()], numbers=False)


def _paper(cell: Cell | None) -> str:
    return plus_minus(cell.mean, cell.std, '') if cell else ''


def _mean(table: Table, cell: Cell, scale: str) -> str:
    runs = measured(table, cell, scale)
    return plus_minus(*mean_std([*runs.accuracy.values()])) if runs else ''


def _each(runs: Measured) -> str:
    return ' '.join(f'{value:.2f}' for value in runs.accuracy.values())


def _best(runs: Measured) -> str:
    return plus_minus(*mean_std([*runs.best.values()]), '')


def _seconds(runs: Measured) -> str:
    return '' if runs.cpu_seconds is None else f'{runs.cpu_seconds:.0f}'


def _seeds(found: dict[tuple[str, str], Measured]) -> str:
    return ' '.join(map(str, sorted(
        {seed for runs in found.values() for seed in runs.accuracy})))


def _command(table: Table, scale: str, spoil: str = '') -> str:
    lines = textwrap.wrap(command(table, scale, spoil), 74,
                          break_on_hyphens=False)
    return '    ' + ' \\\n        '.join(lines)


def _options(cell: Cell) -> str:
    """Command-line options of a cell, or "alone"."""
    return f'`{" ".join(commands.options(cell))}`' if commands.options(cell) \
        else 'alone'


def main() -> None:
    """Write the pages; run in the repository's folder."""
    for name in PAGES:
        path = Path(name)
        path.write_text(fill(path.read_text()))


if __name__ == '__main__':
    main()
