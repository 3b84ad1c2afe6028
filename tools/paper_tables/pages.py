"""The papers' tables in the configs' READMEs, made of the tables' data.

``PYTHONPATH=tools python -m paper_tables.pages`` writes each anew between its
marks, ``<!-- WORDS -->`` and ``<!-- end -->``; a test compares the two. WORDS:
``TABLE``, or ``networks FOLDER`` for the configs of a folder.
"""

from __future__ import annotations

import re
from pathlib import Path

from paper_tables import commands
from paper_tables.cells import Cell, Table
from paper_tables.tables import TABLES

READMES = ('cifar100/README.md', 'imagenet/README.md',
           'knowledge_flow/README.md')


def render(table: Table) -> str:
    """A table of the paper in Markdown: methods by students, or, where each
    student has methods of its own, what is changed and how."""
    return _changed(table) if table.as_is or len(table.students) == 1 else \
        _compared(table)


def fill(text: str) -> str:
    """A page with all its tables written anew."""
    def written(match: re.Match) -> str:
        kind, *words = match[1].split()
        made = render(TABLES[kind]) if kind in TABLES else dict(
            networks=render_networks)[kind](*words)
        return f'<!-- {match[1]} -->\n{made}\n<!-- end -->'

    return re.sub(r'<!-- ([^>]+?) -->\n.*?<!-- end -->', written, text,
                  flags=re.DOTALL)


def render_networks(folder: str) -> str:
    """The configs of a folder, by the first lines of their docstrings."""
    return _markdown(['what', 'config'], [
        [re.match(r'r?"""(.*)\.', path.read_text())[1],  # type: ignore[index]
         f'[{path.stem}]({path.name})'] for path in sorted(
             Path('configs', folder).glob('*.py'))])


def _compared(table: Table) -> str:
    rows = []
    for method, title in table.methods.items():
        cells = {c.student: c for c in table.cells if c.method == method}
        one = next(iter(cells.values()))
        rows.append([title, f'`{one.strategy}`' if one.strategy else '']
                    + [_number(cells.get(s)) for s in table.students])
    return _markdown(['method', '`--distill`', *table.students.values()], rows)


def _changed(table: Table) -> str:
    head = ['what', 'paper, top-1 %', 'options']
    rows = [[cell.title, _number(cell), _options(cell)]
            for cell in table.cells]
    if table.as_is:
        head.insert(2, 'config')
        for row, cell in zip(rows, table.cells):
            row.insert(2, f'`{Path(cell.config).stem}`')
            if len(table.students) > 1:
                row[0] = f'{table.students[cell.student]}: {row[0]}'
    return _markdown(head, rows)


def _options(cell: Cell) -> str:
    """A cell's command behind its config."""
    return f'`{" ".join(commands.options(cell))}`' if commands.options(cell) \
        else 'alone'


def _number(cell: Cell | None) -> str:
    if cell is None or cell.mean is None:
        return ''
    return f'{cell.mean:.2f}' + (
        '' if cell.std is None else f' +- {cell.std:.2f}')


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def main() -> None:
    """Write the pages of this checkout."""
    for name in READMES:
        path = Path('configs') / name
        path.write_text(fill(path.read_text()))


if __name__ == '__main__':
    main()
