"""Plans the runs of a request, and their order.

The identity of a run is a hash of its complete config (losses, strategy,
networks, data, schedule, seed) and of the identities of its teachers. The
folder of a run has a part of the hash in its name, so that a run with another
config is never taken as done, and two tables with the same cell share its run.
The identity does not include the folders of images, weights and outputs, the
number of processes at the same time, and the code of the package
(``result.json`` has its commit; delete a folder to run it again).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from paper_tables import (
    commands,
    images,
    runs,
    scales,
    sources,
    tiny_data,
)
from paper_tables.cells import TOP1, Cell, Metric, Table, check_names
from paper_tables.identity import (
    check_weights,
    config_identity,
    file_identity,
)
from paper_tables.scales import Scale
from paper_tables.tables import COSTS
from paper_tables.teachers import PUBLIC, Absent, NoWeights, Teacher
from paper_tables.training import Run


@dataclass
class Plan:
    """Runs of a request.

    Attributes:
        runs: Runs by name, each after those that it needs.
        cells: Cells of the table with their runs, one a seed.
        missing: Cells whose config or teachers' weights are missing, with the
            reason.
        notes: Differences from the paper, for the report.
    """
    runs: dict[str, Run] = field(default_factory=dict)
    cells: list[tuple[Cell, list[Run]]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def needed(self) -> list[Run]:
        """The runs of all cells, and the teachers and backbones of those that
        are not done."""
        wanted = {run.name for _, made in self.cells for run in made}
        open_runs = [self.runs[name] for name in wanted]
        while open_runs:
            run = open_runs.pop()
            new = () if run.done() else set(run.needs) - wanted
            wanted.update(new)
            open_runs += [self.runs[name] for name in new]
        return [run for run in self.runs.values() if run.name in wanted]


class Planner:
    """Makes the runs of cells.

    Args:
        scale: Scale of the runs.
        work_dir: Folder of all outputs, with a folder for each scale.
        data_root: Folder of the images; ``None`` for that of the configs.
        spoil: Name of the teacher to train on permuted labels.
        weights: The user's checkpoints of teachers, by teacher.
        tool: Path of ``tools/train.py``.
        gpus: Number of processes of a run; 0 to start it without launcher.

    Raises:
        FileNotFoundError: A file of ``weights`` does not exist.
        ValueError: A file of ``weights`` contains no weights, or the pool has
            no teacher of a name.
    """

    def __init__(self,
                 scale: Scale,
                 work_dir: Path,
                 data_root: str | None = None,
                 spoil: str | None = None,
                 weights: Mapping[str, str] | None = None,
                 tool: str = 'tools/train.py',
                 gpus: int = 0) -> None:
        self.scale, self.root = scale, work_dir / scale.name
        self.data_root, self.spoil = data_root, spoil
        self.weights = dict(weights or {})
        self.tool, self.gpus = tool, gpus
        self._pool: dict[str, Teacher] = {}
        # By identity: a network with different names in two tables is trained
        # once.
        self._trained: dict[str, Run] = {}
        for name, path in self.weights.items():
            if not Path(path).is_file():
                raise FileNotFoundError(
                    f'--teacher {name}={path}: there is no such file')
        if scale.teachers:
            if spoil is not None:
                check_names('--spoil', [spoil], scale.teachers,
                            f'the pool of --scale {scale.name}')
            check_names('--teacher', self.weights, scale.teachers,
                        f'the pool of --scale {scale.name}')
        for name, path in self.weights.items():
            check_weights(path, f'--teacher {name}')

    def plan(self,
             table: Table,
             students: Iterable[str] | None = None,
             methods: Iterable[str] | None = None,
             seeds: Iterable[int] = (0, 1, 2),
             strict: bool = True) -> Plan:
        """Plan all runs of a request.

        Args:
            table: The table.
            students: Names of students; ``None`` for all. If one student
                replaces all at this scale, the configs of the first name are
                used, and by default those of ``table.stand_in``.
            methods: Names of methods; ``None`` for all except extra ones.
            seeds: Seeds, with one run each.
            strict: Raise an error if a config or weights of a cell are
                missing; otherwise add the cell to ``Plan.missing``.

        Raises:
            ValueError: A name is unknown, or weights cannot be read; see also
                :mod:`.scales`.
            FileNotFoundError: A config or weights of a teacher are missing.
        """
        asked = list(students or [])
        cells = table.select(asked or None, methods)
        if not table.as_is and self.scale.student is not None:
            whose = asked[0] if asked else table.stand_in
            cells = [cell for cell in cells if cell.student == whose]
        out, absent = Plan(), list[Absent]()
        pools = dict[str, None]()
        for cell in cells:
            try:
                pools.update(self._add(out, table, cell, list(seeds)))
            except FileNotFoundError as error:
                if strict and not isinstance(error, NoWeights):
                    raise
                if isinstance(error, NoWeights):
                    absent += error.teachers
                out.missing.append(f'{cell.student}, {cell.title}: {error}')
        if strict and absent:
            raise NoWeights(absent)
        if strict and table.as_is and self.spoil is not None:
            check_names('--spoil', [self.spoil], pools,
                        f'what {table.name} was asked for')
        out.notes = list(dict.fromkeys(out.notes))
        # Teachers first, then students seed by seed, so that all methods have
        # a first result early.
        order = sorted(out.runs.values(), key=lambda run: (
            not run.is_teacher, not run.lends, run.seed))
        out.runs = {run.name: run for run in order}
        return out

    def _add(self, out: Plan, table: Table, cell: Cell, seeds: list[int],
             metric: Metric | None = None) -> dict[str, None]:
        """Add the runs of a cell and of its teachers and backbone to a plan.

        Args:
            out: The plan.
            table: Table of the cell.
            cell: The cell.
            seeds: Seeds, with one run each.
            metric: What the runs measure; ``None`` for the table's metric.

        Returns:
            Names of the teachers, as keys.
        """
        leaf = commands.read(cell)
        if self.scale.student is not None or (
                self.scale.teachers and scales.is_distiller(leaf)):
            given = len(leaf.model.get('teachers', []))
            leaf = scales.on_small(
                leaf, self.scale, self.scale.student or cell.config)
            left = leaf.model.get('teachers', [])
            if len(left) < given:
                out.notes.append(
                    f"The paper's pool has {given} teachers, this one "
                    f'{len(left)}: {", ".join(t.name for t in left)}.')
        elif self.scale.fitted:
            scales.fit(leaf, self.scale)
        teachers = self._teachers(leaf, table)
        names = [t.name for t in teachers]
        if table.as_is:
            names += [t.run.folder.name.rpartition('_')[0] for t in teachers
                      if t.run is not None]
        if names and self.spoil is not None and self.scale.student is None \
                and not table.as_is:
            check_names('--spoil', [self.spoil], names,
                        f'the pool of {cell.student}, {cell.title}')
        marks = {t.name: scales.PERMUTED for t in teachers
                 if t.name == self.spoil}
        scales.complete(leaf, self.scale, marks)
        for source, teacher in zip(
                sources.find(leaf.model), teachers, strict=True):
            sources.fill(source, '', '')
            if teacher.run is not None:
                out.runs.setdefault(teacher.run.name, teacher.run)
        start, pool = self._start(out, table, cell)
        origins = [t.identity for t in teachers]
        needs = [t.run.name for t in teachers if t.run is not None]
        if start is not None:
            origins.append(start.identity)
            needs.append(start.name)
        base = config_identity(leaf, origins)
        self._move(leaf)
        self._store(leaf, teachers)
        name = self.scale.student_name or cell.student
        kind = f'{cell.method}_{name}_{base[:8]}'
        made = []
        for seed in seeds:
            cfg = copy.deepcopy(leaf)
            cfg.randomness = {**cfg.get('randomness', {}), 'seed': seed}
            made.append(Run(
                name=f'{cell.method} {name} seed {seed} [{base[:8]}]',
                folder=self.root / kind / f'seed{seed}',
                needs=list(needs),
                expected=self._expected(table, cell.method, bool(teachers),
                                        cfg, self.root / kind),
                identity=f'{base}-{seed}',
                config=cfg,
                seed=seed,
                epochs=runs.Length.of(cfg).last,
                start='' if start is None else str(start.output),
                metric=metric or table.metric,
                checkpoints=[t.checkpoint for t in teachers],
                teacher_configs=[t.config for t in teachers],
                tool=self.tool,
                gpus=self.gpus))
        # Cells with the same config under different names (MTKD-RL in Fig. 2
        # and in Table 1) share one run.
        known = {run.identity: run for run in out.runs.values()
                 if not run.is_teacher}
        made = [known.get(run.identity, run) for run in made]
        made = [self._as_on_disk(run) for run in made]
        out.runs.update({run.name: run for run in made})
        out.cells.append((cell, made))
        return dict.fromkeys([*names, *pool])

    def _start(self, out: Plan, table: Table,
               cell: Cell) -> tuple[Run | None, dict[str, None]]:
        """Add the run that trains a cell's backbone to a plan, with seed 0.

        Returns:
            The run (``None`` if the cell has no ``start``), and the names of
            its teachers as keys.
        """
        if cell.start is None:
            return None, {}
        inner = Plan(runs=out.runs, notes=out.notes)
        pool = self._add(inner, table, cell.start, [0], TOP1)
        (_, (run, )), = inner.cells
        run.lends = True
        return run, pool

    def _move(self, cfg: Config) -> None:
        """Set the folder of the images in a config, in place: of a classifier
        to ``data_root``, of a detector or segmentor at scale ``tiny`` to the
        folder of its tiny data set."""
        if cfg.get('default_scope') in scales.DENSE:
            if self.scale.shrink is not None:
                images.move(cfg, str(
                    self.root / 'data' / tiny_data.kind_of(cfg)))
        elif self.data_root is not None:
            images.move(cfg, self.data_root)

    def _store(self, cfg: Config, teachers: Iterable[Teacher]) -> None:
        """Set the folders of stored outputs, in place: one for all runs with
        the same teacher."""
        for source, teacher in zip(sources.find(cfg.model), teachers):
            if isinstance(source.get('executor'), dict):
                source['executor']['folder'] = str(
                    self.root / scales.STORES / teacher.identity[:8])

    def _as_on_disk(self, run: Run) -> Run:
        """Use the folder of the same run if another table has made one."""
        base = run.identity.rpartition('-')[0][:8]
        if not run.folder.parent.exists():
            others = sorted(self.root.glob(f'*_{base}'))
            if others:
                run.folder = others[0] / run.folder.name
        return run

    def _teachers(self, leaf: Config, table: Table) -> list[Teacher]:
        absent, found = list[Absent](), []
        for entry in sources.find(leaf.model):
            try:
                found.append(self._cached(entry, table))
            except NoWeights as error:
                absent += error.teachers
        if absent:
            raise NoWeights(absent)
        return found

    def _cached(self, entry: Any, table: Table) -> Teacher:
        key = json.dumps([entry.get('name'), entry.get('config'),
                          entry.get('checkpoint')], default=str)
        if key not in self._pool:
            self._pool[key] = self._teacher(entry, table)
        return self._pool[key]

    def _teacher(self, entry: Any, table: Table) -> Teacher:
        """Source of a teacher's weights: a file, or the run that trains it.

        Args:
            entry: Config of the teacher, or an ``init_cfg``.
            table: The table.

        Raises:
            NoWeights: A file of public weights is missing.
            FileNotFoundError: The file is missing, and the teacher's config
                has no training.
        """
        small = bool(self.scale.teachers)
        if small:
            name = str(entry.name)
            where = f'mmkd_rl::{self.scale.teachers[name]}'
        else:
            name, where = sources.origin(entry)
        if entry.get('checkpoint') == 'untrained':
            return self._untrained(name, where)
        # In the pools of Knowledge Flow one network has several names, so its
        # config's name identifies it.
        stem = Path(where).stem if table.as_is else name
        spoiled = self.spoil in (name, stem)
        given = self.weights.get(name) or self.weights.get(stem)
        if given is None and not small and not spoiled and \
                self.scale.shrink is None:
            path = str(entry.get('checkpoint') or '')
            if '://' in path:
                given = path
            elif Path(path).is_file():
                check_weights(path, f'teacher {name!r} of the config')
                given = path
            elif Path(path).parts[:1] == (PUBLIC, ):
                raise NoWeights([Absent(name, path, where)])
        if small:
            cfg = scales.small(self.scale.teachers[name], self.scale)
        else:
            cfg = commands.load_named(where)
        if given is not None and not spoiled:
            return Teacher(name, where, given, file_identity(given))
        if 'train_dataloader' not in cfg:
            raise FileNotFoundError(
                f'teacher {name!r}: {entry.get("checkpoint")!r} does not '
                f'exist, and {where} is not a training config that could '
                f'make it; give its weights with --teacher {name}=FILE')
        if not small and self.scale.fitted:
            scales.fit(cfg, self.scale)
        if spoiled:
            images.permute_labels(cfg, cfg.data_preprocessor.num_classes)
        scales.complete(cfg, self.scale, {})
        identity = config_identity(cfg, [])
        self._move(cfg)
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': 0}
        label = f'{stem}-permuted' if spoiled else stem
        folder = self.root / 'teachers' / f'{label}_{identity[:8]}'
        run = Run(
            name=f'teacher {label} [{identity[:8]}]',
            folder=folder,
            needs=[],
            expected=self._expected(table, stem, False, cfg, folder),
            identity=f'{identity}-0',
            config=cfg,
            seed=0,
            epochs=cfg.train_cfg.max_epochs,
            tool=self.tool,
            gpus=self.gpus,
            lends=True)
        run = self._trained.setdefault(run.identity, run)
        return Teacher(name, str(run.folder / runs.CONFIG), str(run.output),
                        run.identity, run)

    def _untrained(self, name: str, where: str) -> Teacher:
        """A teacher with the random weights of its initialisation."""
        cfg = commands.load_named(where)
        if self.scale.fitted:
            scales.fit(cfg, self.scale)
        identity = config_identity(Config(dict(model=cfg.model)), [])
        config: str | dict = where
        if self.scale.shrink is not None:
            config = dict(model=cfg.model.to_dict(),
                          data_preprocessor=cfg.data_preprocessor.to_dict())
        return Teacher(name, config, 'untrained', f'untrained {identity}')

    def _expected(self, table: Table, name: str, distilled: bool, cfg: Config,
                  folder: Path) -> float | None:
        """Expected seconds of a run: the mean of finished seeds, otherwise the
        estimate of the table or scale, otherwise ``None``."""
        seen = []
        for path in [*folder.glob(runs.RESULT),
                     *folder.glob(f'*/{runs.RESULT}')]:
            try:
                seen.append(json.loads(path.read_text())['seconds'])
            except (OSError, ValueError, KeyError):
                continue
        if seen:
            return sum(seen) / len(seen)
        if table.as_is and self.scale.name == 'short':
            return table.seconds.get(name)
        if self.scale.seconds:
            usual = 'distilled' if distilled else 'baseline'
            return self.scale.seconds.get(name, self.scale.seconds[usual])
        if table.as_is:
            return None
        on_cifar = cfg.get('data_preprocessor', {}).get('num_classes') == 100
        if on_cifar and (distilled or name in COSTS):
            # Methods that Table 6(c) lacks count as slow as its slowest one.
            epoch, _ = COSTS.get(name, max(COSTS.values()))
            return float(epoch) * cfg.train_cfg.max_epochs
        return None
