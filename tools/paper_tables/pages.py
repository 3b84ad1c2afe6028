"""The papers' tables in the configs' READMEs, made of the tables' data.

``PYTHONPATH=tools python -m paper_tables.pages`` writes each anew between its
marks, ``<!-- TABLE -->`` and ``<!-- end -->``; a test compares the two.
"""

from __future__ import annotations

import re
from pathlib import Path

from paper_tables import scales
from paper_tables.cells import Cell, Table
from paper_tables.tables import TABLES

READMES = ('cifar100/README.md', 'imagenet/README.md')


def render(table: Table) -> str:
    """A table of the paper in Markdown: methods by students, or, with one
    student, what is changed and how."""
    return _compared(table) if len(table.students) > 1 else _changed(table)


def fill(text: str) -> str:
    """A page with all its tables written anew."""
    def written(match: re.Match) -> str:
        table = TABLES[match.group(1)]
        return f'<!-- {table.name} -->\n{render(table)}\n<!-- end -->'

    return re.sub(r'<!-- ([\w-]+) -->\n.*?<!-- end -->', written, text,
                  flags=re.DOTALL)


def _compared(table: Table) -> str:
    rows = []
    for method, title in table.methods.items():
        cells = {c.student: c for c in table.cells if c.method == method}
        one = next(iter(cells.values()))
        rows.append([title, f'`{one.strategy}`' if one.strategy else '']
                    + [_number(cells.get(s)) for s in table.students])
    return _markdown(['method', '`--distill`', *table.students.values()], rows)


def _changed(table: Table) -> str:
    return _markdown(
        ['what', 'paper, top-1 %', 'options'],
        [[cell.title, _number(cell), _options(cell)] for cell in table.cells])


def _options(cell: Cell) -> str:
    """A cell's command behind its config."""
    words = scales.command(cell).replace(' \\\n   ', '').split(' ', 3)
    return f'`{words[3]}`' if len(words) > 3 else 'alone'


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
