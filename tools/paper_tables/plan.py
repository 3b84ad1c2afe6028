"""Which runs a request needs, and in which order.

A run is what its complete config says: losses, strategy, networks, data,
schedule, seed, and the same of its teachers. The hash of that is its identity
and part of its folder's name, so that a run with another config is never taken
for done, and two tables that share a cell share its run. Not part of it: where
images, weights and outputs lie, how many processes run side by side, and the
package's code (``result.json`` notes its commit; delete a folder to run it
again).
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmkd_rl.utils import checkpoint_io
from paper_tables import runs, scales
from paper_tables.cells import Cell, Table, check_names
from paper_tables.scales import Scale
from paper_tables.tables import COSTS
from task_runner import Job

# Where configs look for weights that others have trained and published; what
# is trained here lies in work_dirs.
_PUBLIC = 'checkpoints'


@dataclass
class Run(Job):
    """One training.

    Attributes:
        identity: See this module.
        config: Complete but for paths, which :meth:`prepare` writes.
        seed: Of all random generators.
        checkpoints: File of the weights of each source (a teacher, or what
            the run begins from), in the order of :func:`.scales.sources`.
        teacher_configs: File of the config of each, likewise, or the model's
            config itself.
        tool: ``tools/train.py``.
        gpus: Processes of one run; 0: no launcher.
    """
    identity: str = ''
    config: Config = field(default_factory=Config)
    seed: int = 0
    checkpoints: list[str] = field(default_factory=list)
    teacher_configs: list[str | dict] = field(default_factory=list)
    tool: str = 'tools/train.py'
    gpus: int = 0

    @property
    def output(self) -> Path:
        """Its last checkpoint."""
        return self.folder / f'epoch_{self.epochs}.pth'

    def result(self) -> runs.Result | None:
        """What came out, if it is done."""
        return runs.read_result(self.folder, self.identity)

    def done(self) -> str | None:
        """See :meth:`Job.done`. A student needs no more than its result; a
        teacher's weights are read by others."""
        result = self.result()
        if result is None or (self.is_teacher and not self.output.is_file()):
            return None
        return _in_words(result)

    @property
    def is_teacher(self) -> bool:
        """Whether others need it."""
        return self.folder.parent.name == 'teachers'

    def prepare(self) -> list[str]:
        """Write the complete config; see :meth:`Job.prepare`."""
        cfg = copy.deepcopy(self.config)
        cfg.work_dir = str(self.folder)
        for source, config, weights in zip(
                scales.sources(cfg.model), self.teacher_configs,
                self.checkpoints, strict=True):
            scales.fill(source, config, weights)
        path = self.folder / runs.CONFIG
        runs.write_text(path, cfg.pretty_text)
        times = runs.read_times(self.folder)
        if (commit := runs.commit()) not in times.commits:
            times.commits.append(commit)
            runs.write_json(self.folder / runs.TIMES, asdict(times))
        command = [sys.executable]
        if self.gpus:
            command += ['-m', 'torch.distributed.run', '--standalone',
                        f'--nproc_per_node={self.gpus}']
        command += [self.tool, str(path)]
        if self.gpus:
            command += ['--launcher', 'pytorch']
        point = self.resumes_from()
        return command + (['--resume', str(point)] if point else [])

    def resumes_from(self) -> Path | None:
        """The checkpoint that it would go on from."""
        return runs.resume_point(self.folder, self.epochs,
                                 self.config.train_cfg.get('val_interval', 1))

    def ended(self, seconds: float, cpu_seconds: float, threads: int,
              whole: bool) -> str:
        """See :meth:`Job.ended`."""
        times = runs.read_times(self.folder)
        times.seconds += seconds
        times.cpu_seconds += cpu_seconds
        times.attempts += 1
        times.threads = threads
        runs.write_json(self.folder / runs.TIMES, asdict(times))
        if not whole:
            return ''
        return _in_words(
            runs.collect(self.folder, self.identity, self.seed, self.epochs))

    def state(self) -> str:
        """Done, resumes or new, in words."""
        if text := self.done():
            return f'done: {text}'
        point = self.resumes_from()
        return f'resumes from {point.name}' if point else 'new'


@dataclass
class Plan:
    """What a request needs.

    Attributes:
        runs: By name, teachers first.
        cells: The table's cells with their runs, one a seed.
        missing: Cells without a config yet, with the reason.
        notes: What the reader of the table must know.
    """
    runs: dict[str, Run] = field(default_factory=dict)
    cells: list[tuple[Cell, list[Run]]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def needed(self) -> list[Run]:
        """The runs without teachers that only finished students need."""
        wanted = {
            name for run in self.runs.values()
            if not run.is_teacher and not run.done() for name in run.needs
        }
        return [run for run in self.runs.values()
                if not run.is_teacher or run.name in wanted]


class Planner:
    """Makes runs of cells.

    Args:
        scale: The budget.
        work_dir: Where everything goes; a folder a scale in it.
        data_root: Of the images; ``None``: the configs' own.
        spoil: The teacher that learns permuted labels.
        weights: Checkpoints of teachers that the user has, by name.
        tool: ``tools/train.py``.
        gpus: Processes of one run; 0: no launcher.
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
        self._pool: dict[str, _Teacher] = {}
        # By identity: two tables' names for one network are one run.
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
            _check_weights(path, f'--teacher {name}')

    def plan(self,
             table: Table,
             students: Iterable[str] | None = None,
             methods: Iterable[str] | None = None,
             seeds: Iterable[int] = (0, 1, 2),
             strict: bool = True) -> Plan:
        """All runs of a request.

        Args:
            table: Of which table.
            students: Which; ``None``: all. At the small scales all become
                one, and these say whose configs are shrunk: the first one's.
            methods: Which; ``None``: all.
            seeds: One run each.
            strict: Raise where a cell has no config; else note it.

        Raises:
            ValueError: An unknown name, or weights that cannot be read; see
                also :mod:`.scales`.
            FileNotFoundError: A config or teachers' weights are missing.
        """
        asked = list(students or [])
        cells = table.select(asked or None, methods)
        if not table.as_is and self.scale.student is not None:
            whose = asked[0] if asked else table.stand_in
            cells = [cell for cell in cells if cell.student == whose]
        out, absent = Plan(), list[_Absent]()
        pools = dict[str, None]()
        for cell in cells:
            try:
                pools.update(self._add(out, table, cell, list(seeds)))
            except FileNotFoundError as error:
                if strict and not isinstance(error, _NoWeights):
                    raise
                if isinstance(error, _NoWeights):
                    absent += error.teachers
                out.missing.append(f'{cell.student}, {cell.title}: {error}')
        if strict and absent:
            raise _NoWeights(absent)
        if strict and table.as_is and self.spoil is not None:
            check_names('--spoil', [self.spoil], pools,
                        f'what {table.name} was asked for')
        out.notes = list(dict.fromkeys(out.notes))
        # Teachers first; among students seed by seed, so that a first column
        # of the table exists early.
        order = sorted(out.runs.values(),
                       key=lambda run: (not run.is_teacher, run.seed))
        out.runs = {run.name: run for run in order}
        return out

    def _add(self, out: Plan, table: Table, cell: Cell,
             seeds: list[int]) -> dict[str, None]:
        """Add a cell's runs and its teachers'.

        Returns:
            The teachers' names.
        """
        leaf = scales.read(cell)
        if self.scale.student is not None:
            given = len(leaf.model.get('teachers', []))
            leaf = scales.on_small(leaf, self.scale)
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
                scales.sources(leaf.model), teachers, strict=True):
            scales.fill(source, '', '')
            if teacher.run is not None:
                out.runs.setdefault(teacher.run.name, teacher.run)
        base = _identity(leaf, [t.identity for t in teachers])
        if self.data_root is not None:
            scales.move_data(leaf, self.data_root)
        name = self.scale.student_name or cell.student
        kind = f'{cell.method}_{name}_{base[:8]}'
        made = []
        for seed in seeds:
            cfg = copy.deepcopy(leaf)
            cfg.randomness = {**cfg.get('randomness', {}), 'seed': seed}
            made.append(Run(
                name=f'{cell.method} {name} seed {seed} [{base[:8]}]',
                folder=self.root / kind / f'seed{seed}',
                needs=[t.run.name for t in teachers if t.run is not None],
                expected=self._expected(table, cell.method, bool(teachers),
                                        cfg, self.root / kind),
                identity=f'{base}-{seed}',
                config=cfg,
                seed=seed,
                epochs=cfg.train_cfg.max_epochs,
                checkpoints=[t.checkpoint for t in teachers],
                teacher_configs=[t.config for t in teachers],
                tool=self.tool,
                gpus=self.gpus))
        # Cells that differ in name only (all of Fig. 2's and Table 1's
        # MTKD-RL) are one run.
        known = {run.identity: run for run in out.runs.values()
                 if not run.is_teacher}
        made = [known.get(run.identity, run) for run in made]
        made = [self._as_on_disk(run) for run in made]
        out.runs.update({run.name: run for run in made})
        out.cells.append((cell, made))
        return dict.fromkeys(names)

    def _as_on_disk(self, run: Run) -> Run:
        """The same run under the name that another table gave it."""
        base = run.identity.rpartition('-')[0][:8]
        if not run.folder.parent.exists():
            others = sorted(self.root.glob(f'*_{base}'))
            if others:
                run.folder = others[0] / run.folder.name
        return run

    def _teachers(self, leaf: Config, table: Table) -> list[_Teacher]:
        absent, found = list[_Absent](), []
        for entry in scales.sources(leaf.model):
            try:
                found.append(self._cached(entry, table))
            except _NoWeights as error:
                absent += error.teachers
        if absent:
            raise _NoWeights(absent)
        return found

    def _cached(self, entry: Any, table: Table) -> _Teacher:
        key = json.dumps([entry.get('name'), entry.get('config'),
                          entry.get('checkpoint')], default=str)
        if key not in self._pool:
            self._pool[key] = self._teacher(entry, table)
        return self._pool[key]

    def _teacher(self, entry: Any, table: Table) -> _Teacher:
        """Where a teacher's weights come from."""
        small = bool(self.scale.teachers)
        if small:
            name = str(entry.name)
            where = f'mmkd_rl::{self.scale.teachers[name]}'
        else:
            name, where = scales.origin(entry)
        if entry.get('checkpoint') == 'untrained':
            return self._untrained(name, where)
        # Knowledge Flow's pools are many, and one net has several names.
        stem = Path(where).stem if table.as_is else name
        spoiled = self.spoil in (name, stem)
        given = self.weights.get(name) or self.weights.get(stem)
        if given is None and not small and not spoiled and \
                self.scale.shrink is None:
            path = str(entry.get('checkpoint') or '')
            if '://' in path:
                given = path
            elif Path(path).is_file():
                _check_weights(path, f'teacher {name!r} of the config')
                given = path
            elif Path(path).parts[:1] == (_PUBLIC, ):
                raise _NoWeights([_Absent(name, path, where)])
        if small:
            cfg = scales.small(self.scale.teachers[name], self.scale)
        else:
            cfg = scales.load_named(where)
        if given is not None and not spoiled:
            return _Teacher(name, where, given, _file_identity(given))
        if 'train_dataloader' not in cfg:
            raise FileNotFoundError(
                f'teacher {name!r}: {entry.get("checkpoint")!r} does not '
                f'exist, and {where} is not made for training; give its '
                f'weights as --teacher {name}=FILE')
        if not small and self.scale.fitted:
            scales.fit(cfg, self.scale)
        if spoiled:
            scales.permute_labels(cfg, cfg.data_preprocessor.num_classes)
        scales.complete(cfg, self.scale, {})
        identity = _identity(cfg, [])
        if self.data_root is not None:
            scales.move_data(cfg, self.data_root)
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
            gpus=self.gpus)
        run = self._trained.setdefault(run.identity, run)
        return _Teacher(name, str(run.folder / runs.CONFIG), str(run.output),
                        run.identity, run)

    def _untrained(self, name: str, where: str) -> _Teacher:
        """A teacher with the random weights that it was born with."""
        cfg = scales.load_named(where)
        if self.scale.fitted:
            scales.fit(cfg, self.scale)
        identity = _identity(Config(dict(model=cfg.model)), [])
        config: str | dict = where
        if self.scale.shrink is not None:
            config = dict(model=cfg.model.to_dict(),
                          data_preprocessor=cfg.data_preprocessor.to_dict())
        return _Teacher(name, config, 'untrained', f'untrained {identity}')

    def _expected(self, table: Table, name: str, distilled: bool, cfg: Config,
                  folder: Path) -> float | None:
        """Seconds: of other seeds' runs, else as stated, else ``None``."""
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
            # A method that Table 6(c) does not have counts as its slowest.
            epoch, _ = COSTS.get(name, max(COSTS.values()))
            return float(epoch) * cfg.train_cfg.max_epochs
        return None


@dataclass
class _Teacher:
    """A teacher of a run.

    Attributes:
        name: In the pool.
        config: Path or name of its config, or that itself.
        checkpoint: File of its weights.
        identity: Of these.
        run: That trains it; ``None``: the weights are there.
    """
    name: str
    config: str | dict
    checkpoint: str
    identity: str
    run: Run | None = None


@dataclass(frozen=True)
class _Absent:
    """A teacher whose public weights are not there.

    Attributes:
        name: In the pool.
        checkpoint: Where they were looked for.
        config: Whose head says where they are.
    """
    name: str
    checkpoint: str
    config: str


class _NoWeights(FileNotFoundError):
    """Public weights that are not there, of one teacher or several."""

    def __init__(self, teachers: Iterable[_Absent]) -> None:
        self.teachers = list(dict.fromkeys(teachers))
        lines = [
            f'  {t.name}: no {t.checkpoint!r}; see the head of '
            f'{t.config.replace("mmkd_rl::", "configs/")}'
            for t in self.teachers
        ]
        super().__init__('\n'.join([
            'public weights are missing, and these teachers are not trained '
            f'here (looked for from {os.getcwd()}):', *lines,
            'Each head says which weights they are, and how '
            'tools/model_converters/convert.py makes that file of them; or '
            'give a file as --teacher NAME=FILE'
        ]))


def check_data(plan: Plan) -> None:
    """Look whether the images are there, before hours are spent.

    Raises:
        FileNotFoundError: A folder is missing or empty.
    """
    for run in plan.needed():
        if run.done():
            continue
        for folder in scales.data_folders(run.config):
            path = Path(folder)
            if not path.is_dir() or next(path.iterdir(), None) is None:
                here = f'no images in {folder!r} (from {os.getcwd()}). Put '
                root = str(run.config.get('data_root', '')).rstrip('/')
                if folder.rstrip('/') == root:
                    raise FileNotFoundError(
                        f"{here}torchvision's files there, or give the folder "
                        'that holds them as --data-root; which: '
                        'configs/knowledge_flow/README.md')
                raise FileNotFoundError(
                    f'{here}the class folders there, or give the folder that '
                    f'holds {path.name!r} as --data-root; how to make them: '
                    'configs/cifar100/README.md (CIFAR-100), '
                    'configs/imagenet/README.md (ImageNet)')


def _identity(cfg: Config, teachers: list[str]) -> str:
    """Hash of what is run; paths and seeds are not in it."""
    content = cfg.to_dict()
    for key in ('work_dir', 'randomness', 'resume', 'load_from', 'log_level',
                'data_root'):
        content.pop(key, None)
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for name in ('num_workers', 'persistent_workers', 'pin_memory'):
            content.get(key, {}).pop(name, None)
    text = json.dumps([content, teachers], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_weights(path: str, key: str) -> None:
    """Look into a checkpoint before hours are spent.

    Raises:
        ValueError: It cannot be read, or there are no weights in it.
    """
    content = checkpoint_io.load(path, key)
    if not isinstance(content, dict) or not content:
        raise ValueError(f'{key}={path!r} holds no weights: it is a '
                         f'{type(content).__name__}, not a filled dict')


def _file_identity(path: str) -> str:
    """Of weights that were given: what is in them, or their address."""
    if '://' in path:
        return path
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _in_words(result: runs.Result) -> str:
    return (f'{result.last:.2f} % (best {result.best:.2f} in epoch '
            f'{result.best_epoch})')
