"""Makes the rows of a table from the folders of runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from paper_tables import runs
from paper_tables.cells import Cell, Table
from paper_tables.plan import Plan, Planner, Run
from paper_tables.report import Row
from paper_tables.scales import Scale


def gather(
    planner: Callable[[str | None], Planner],
    table: Table,
    scale: Scale,
    plan: Plan,
    students: Sequence[str] | None,
    seeds: Sequence[int],
    spoil: str | None,
    failed: Collection[str] = ()
) -> tuple[list[Row], dict[str, runs.Result], list[str]]:
    """Collect results of a request and of earlier ones for the same table.

    Args:
        planner: Function that makes a planner, given the spoiled teacher or
            ``None``.
        table: The table.
        scale: Scale of the runs.
        plan: Plan of the request.
        students: Students of the request; ``None`` for all.
        seeds: Seeds of the request; finished runs with other seeds are
            included, too.
        spoil: Teacher that was trained on permuted labels, if any.
        failed: Names of the request's runs that failed.

    Returns:
        Rows, results of the teachers and backbones by name, and notes.
    """
    small = scale.student is not None
    shown = students if small else None
    # All methods, including extra ones: each that was run before is shown.
    whole = planner(spoil).plan(
        table, shown, list(table.methods), seeds, strict=False)
    asked = {(cell.student, cell.method) for cell, _ in plan.cells}
    before: dict[tuple[str, str], dict[int, float]] = {}
    if spoil is not None:
        clean = planner(None).plan(
            table, shown, list(table.methods), seeds, strict=False)
        before = {(cell.student, cell.method):
                  {seed: r.last for seed, r in _finished(made).items()}
                  for cell, made in clean.cells}
    rows = []
    for cell, made in whole.cells:
        key = (cell.student, cell.method)
        results = _finished(made)
        if not results and key not in asked:
            continue
        states = [f'seed {run.seed} '
                  f'{"failed" if run.name in failed else "not finished"}'
                  for run in made
                  if key in asked and run.seed not in results]
        rows.append(Row(
            cell,
            scale.student_name if small else cell.student,
            results,
            made[0].folder.parent,
            _paper(table, cell, students, small),
            before.get(key, {}),
            ', '.join(states),
            [kind for kind in ('logit', 'feature')
             if made[0].config.model.get(f'{kind}_loss', '') is None],
            made[0].length.by_epoch))
    teachers = {}
    for run in whole.runs.values():
        result = run.result() if run.lends else None
        if result is not None and run.is_teacher:
            name = run.folder.name.rpartition('_')[0]
            teachers[name.removesuffix('-permuted')] = result
        elif result is not None:
            teachers[run.name.partition(' [')[0]] = result
    return rows, teachers, list(dict.fromkeys(plan.notes + whole.notes))


def _finished(made: list[Run]) -> dict[int, runs.Result]:
    """Results of all finished seeds in the folder of some runs, by seed."""
    base = made[0].identity.rpartition('-')[0]
    out = {}
    for path in made[0].folder.parent.glob('seed*'):
        seed = path.name.removeprefix('seed')
        result = runs.read_result(path, f'{base}-{seed}')
        if result is not None:
            out[result.seed] = result
    return dict(sorted(out.items()))


def _paper(table: Table, cell: Cell, students: Sequence[str] | None,
           small: bool) -> dict[str, tuple[float | None, float | None]]:
    """The paper's mean and standard deviation by student: of the cell's
    student, or, if ``small``, of all students that one student replaces."""
    return {
        table.students[other.student]: (other.mean, other.std)
        for other in table.cells if other.method == cell.method and
        (other.student in (students or table.students) if small else
         other.student == cell.student)
    }
