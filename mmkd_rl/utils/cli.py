"""Functions of all command-line tools: arguments, launchers, errors."""

from __future__ import annotations

import argparse
import ast
import contextlib
import errno
import os
import os.path as osp
import pickle
import re
import sys
import traceback
from collections.abc import Iterator

import torch
import torch.distributed as dist
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.config.utils import ConfigParsingError
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmkd_rl.errors import is_ours, raised_at
from mmkd_rl.options import ConfigError
from mmkd_rl.utils.checkpoint_io import latest_in
from mmkd_rl.utils.configs import (
    complete_loaders,
    config_name,
    merge_options,
)
from mmkd_rl.utils.data_files import check_data, missing_data

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130
# Errors that MMEngine raises for a wrong config, path or checkpoint.
# RuntimeError: by MMEngine for loops, by torch for truncated files.
_BAD_INPUT = (ValueError, TypeError, KeyError, AttributeError, OSError,
              ImportError, SyntaxError, NameError, AssertionError,
              RuntimeError, ConfigParsingError, pickle.UnpicklingError,
              FloatingPointError)
#: Beginning of a value that is a dict, or a list of dicts.
_DICT = re.compile(r'[\s\[(]*\{')
_CONFIG_READER = osp.join('mmengine', 'config', 'config.py')


class Options(DictAction):
    """Parser action for ``KEY=VALUE`` any number of times."""

    def __call__(self, parser, namespace, values, option_string=None):
        """See :class:`argparse.Action`."""
        plain, with_dicts = [], {}
        for value in values:
            key, equals, text = value.partition('=')
            if not equals:
                parser.error(f'{option_string}: {value!r} is not of the form '
                             'KEY=VALUE')
            try:
                if _DICT.match(text):
                    # MMEngine's parser knows lists and tuples, but no dicts.
                    with_dicts[key] = ast.literal_eval(text)
                else:
                    self._parse_iterable(text)
                    plain.append(value)
            except (RecursionError, AssertionError, ValueError, SyntaxError):
                parser.error(
                    f'{option_string}: the value of {value!r} cannot be read; '
                    'write a dict as a="{\'b\': 1}" or one key at a time '
                    '(a.b=1 a.c=2), and a list as a="[1,2]"')
        super().__call__(parser, namespace, plain, option_string)
        getattr(namespace, self.dest).update(with_dicts)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that train.py and test.py have in common."""
    parser.add_argument(
        '--work-dir', help='where logs and checkpoints go (default: the '
        "config's work_dir, else ./work_dirs/<config's name>)")
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Options,
        metavar='KEY=VALUE',
        help='override settings of the config, as in optim_wrapper.optimizer.'
        'lr=0.1; lists as key="[a,b]" without spaces, a hook by its type as '
        'in custom_hooks.KnowledgeFlowHook.kl_weight=0')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes of a distributed job were started')
    parser.add_argument(
        '--debug',
        action='store_true',
        help='show where in the code an error was raised (also '
        'MMKD_RL_DEBUG=1)')
    # Given by torch.distributed.launch, which MIM still uses.
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0,
        help=argparse.SUPPRESS)


def apply_common_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Write the common arguments into ``cfg``, in place."""
    complete_loaders(cfg)
    if args.cfg_options is not None:
        merge_options(cfg, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('./work_dirs', config_name(args.config))
    place = osp.abspath(cfg.work_dir)
    while not osp.exists(place):
        place = osp.dirname(place)
    if not osp.isdir(place):
        raise ValueError(f'--work-dir {cfg.work_dir!r}: {place!r} is a file; '
                         'give a folder')
    if 'model' not in cfg:
        raise KeyError(f'config {args.config!r} has no "model"; is it one of '
                       'the files under _base_?')
    # Set even without torchrun: MMEngine reads it wherever it wraps a model.
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))


def start_distributed_on_cpu(cfg: Config) -> bool:
    """Start gloo processes if there is no GPU.

    MMEngine selects a CUDA device before it starts a process group, and wraps
    the model for one device, so without a GPU both are done here.

    Returns:
        Whether a process group was started.

    Raises:
        ValueError: The launcher needs GPUs.
    """
    if cfg.launcher == 'none' or torch.cuda.is_available():
        return False
    if cfg.launcher != 'pytorch':
        raise ValueError(f'--launcher {cfg.launcher} needs GPUs, and torch '
                         'sees none; on CPUs use tools/dist_train.sh')
    missing = [k for k in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
               if k not in os.environ]
    if missing:
        raise ValueError('--launcher pytorch reads the environment variables '
                         f'of torchrun, and {", ".join(missing)} are not set; '
                         'start the job with tools/dist_train.sh')
    wrapper = cfg.get('model_wrapper_cfg') or ConfigDict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False))
    wrapper.setdefault('device_ids', None)
    cfg.model_wrapper_cfg = wrapper
    dist.init_process_group(backend='gloo')
    return True


def check_checkpoint(path: str, key: str) -> None:
    """Check that a checkpoint exists, before a model is built.

    Args:
        path: A file, or a URL (``https://...``), which is not checked.
        key: Key of the path, for messages.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if '://' not in path and not osp.isfile(osp.expanduser(path)):
        raise FileNotFoundError(f'{key} {path!r} is not a file')


def build_runner(cfg: Config, *data: str) -> Runner:
    """Build the config's runner, if the files of its data exist.

    Args:
        cfg: The config.
        *data: Which data are used, see :func:`check_data`.

    Raises:
        FileNotFoundError: A file or folder of the data does not exist.
    """
    check_data(cfg, data)
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


class Stage:
    """State of a tool's run, for messages and exit codes."""

    def __init__(self) -> None:
        self.runner: Runner | None = None
        self.resume_command = ''
        #: Config, for messages that name a setting.
        self.cfg: Config | None = None

    @property
    def running(self) -> bool:
        """Whether the first batch has been reached."""
        hook = getattr(self, '_hook', None)
        return hook is not None and hook.seen

    def watch(self, runner: Runner) -> None:
        """Register a hook that records the first batch of ``runner``."""
        from mmengine.hooks import Hook

        class FirstBatch(Hook):
            priority = 'VERY_HIGH'
            seen = False

            def before_train_iter(self, *args, **kwargs):
                self.seen = True

            before_val_iter = before_train_iter
            before_test_iter = before_train_iter

        self.runner = runner
        self._hook = FirstBatch()
        runner.register_hook(self._hook)


def _is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (
        errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _is_refusal(error: BaseException, running: bool) -> bool:
    """Whether an error is a message about the user's input.

    Messages are errors of ``raise`` statements in this package, and before the
    first batch also those of other packages, missing files, options that a
    registered class does not take, and all errors while a config is read. All
    others are faults in code and need their traceback: a missing attribute, an
    index out of range, shapes that do not match.
    """
    if isinstance(error, ConfigError) or _is_disk_full(error):
        return True
    place = raised_at(error)
    if place is None:
        return False
    last, statement = place
    if is_ours(last):
        return statement.startswith('raise')
    if running:
        return False
    if any(f.name == 'fromfile' and f.filename.endswith(_CONFIG_READER)
           for f in traceback.extract_tb(error.__traceback__)):
        return True
    if isinstance(error, OSError):
        return error.filename is not None or statement.startswith('raise')
    if isinstance(error, TypeError) and (
            last.name == 'build_from_cfg' or
            'unexpected keyword argument' in str(error)):
        return True  # options that the class does not take
    # nn.Module raises AttributeError for every misspelt name in code.
    return not isinstance(error, AttributeError) and statement.startswith(
        ('raise', 'assert'))


def describe(error: BaseException) -> str:
    """The error as one line or a few, without a traceback."""
    if isinstance(error, KeyError) and error.args:
        # str() of a KeyError is the repr of its text.
        text = str(error.args[0])
        return text if ' ' in text else f'missing key {text!r}'
    if _is_disk_full(error):
        return (f'{error}. Files that were written before are whole; free '
                'some space, and go on with --resume')
    if isinstance(error, SyntaxError) and 'U+FEFF' in str(error.msg):
        return ('a config begins with a byte order mark; save it as UTF-8 '
                'without BOM')
    if isinstance(error, SyntaxError):
        return f'{error.filename}, line {error.lineno}: {error.msg}'
    text = str(error).strip()
    if text.startswith('Caught ') and 'Original Traceback' in text:
        # Of a worker process of a data loader.
        name = f'{type(error).__name__}: '
        text = text.rpartition(name)[2].strip()
    if not text and error.__context__ is not None:
        return describe(error.__context__)
    return text or type(error).__name__


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether an error was raised while Ctrl-C was handled: MMEngine turns it
    into another one where it formats a config."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _stopped(stage: Stage) -> int:
    """Say how a run that was interrupted goes on.

    Returns:
        The exit code.
    """
    where = ''
    if stage.runner is not None and stage.running:
        where = f' at iteration {stage.runner.iter}'
    print(f'\nstopped{where}', file=sys.stderr)
    if stage.resume_command:
        saved = stage.runner is not None and latest_in(
            stage.runner.work_dir)
        print(f'go on from {saved}:\n  {stage.resume_command}' if saved
              else 'there is no checkpoint yet: it starts anew next time',
              file=sys.stderr)
    return EXIT_INTERRUPTED


@contextlib.contextmanager
def clear_errors(debug: bool | None = None) -> Iterator[Stage]:
    """End the process with one message if the input is wrong.

    Args:
        debug: Also show the traceback for wrong inputs; ``None``: the tool
            has no such option. MMKD_RL_DEBUG=1 does the same.

    Exit codes: 2 for a wrong input, 1 for any other failure (with its
    traceback, see :func:`_is_refusal`), 130 when the user interrupts.

    Yields:
        Stage: The caller passes its runner to ``stage.watch(runner)``.
    """
    how = 'MMKD_RL_DEBUG=1' if debug is None else '--debug'
    debug = debug or os.environ.get('MMKD_RL_DEBUG', '0') not in ('', '0')
    stage = Stage()
    code = 0
    try:
        yield stage
    except KeyboardInterrupt:
        code = _stopped(stage)
    except BrokenPipeError:
        # What reads our output has ended, as `| head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    except _BAD_INPUT as raised:
        if _is_interrupt(raised):
            code = _stopped(stage)
        else:
            # MMEngine raises a new TypeError if a hook's constructor raises
            # one.
            error = raised.__context__ if isinstance(
                raised.__context__, ConfigError) else raised
            refusal = _is_refusal(error, stage.running)
            code = EXIT_BAD_INPUT if refusal else EXIT_FAILED
            if debug or not refusal:
                traceback.print_exc()
            else:
                text = describe(error) + missing_data(error, stage.cfg)
                print(f'\nERROR: {text}\n({type(error).__name__}; {how} shows '
                      'where it was raised)', file=sys.stderr)
    finally:
        if dist.is_available() and dist.is_initialized():
            # Waiting for the other processes would hang after an error.
            if code == 0 and sys.exc_info()[0] is None:
                dist.barrier()
            dist.destroy_process_group()
    if code:
        sys.stdout.flush()
        sys.exit(code)
