"""Make the project's virtual environment ``.venv`` and install into it.

    python3 tools/setup_env.py          # everything (`make setup`)
    python3 tools/setup_env.py --lint   # the environment and ruff only

Steps: check the machine (Python, compiler, headers); make ``.venv``; install
torch and torchvision together; compile the detection operators of onedl-mmcv;
install the rest of ``requirements/`` and this package (editable); check the
result (``tools/check_env.py``). A finished run writes a stamp with a hash of
its inputs, and the next run with the same inputs ends at once. An interrupted
run leaves a marker, and the next run starts with a new ``.venv``; downloads
(uv's cache) and compiled operators (~/.cache/mmkd_rl) are kept.

Variables: PYTHON of the Makefile is the interpreter that runs this file;
MMKD_RL_JOBS is the number of compiler processes; uv reads its own variables
(UV_INDEX_URL, UV_CACHE_DIR, UV_TORCH_BACKEND=cpu, ...).

This file uses only the standard library and the syntax of Python 3.6, so that
an old Python can print the message that it is too old.
"""

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = (3, 10), (3, 14)
UV = 'uv==0.13.8'


class SetupError(Exception):
    """A problem that the user can solve; the message says how."""


def say(text):
    print('[setup] ' + text, flush=True)


def fingerprint(root=ROOT):
    """Hash of the requirements, set-up files and folder of a checkout.

    The folder is included, because virtual environments and editable installs
    break when they are moved.
    """
    digest = hashlib.sha256()
    files = sorted((root / 'requirements').glob('*.txt'))
    files += [root / 'setup.py', root / 'tools' / 'setup_env.py']
    for path in files:
        digest.update(path.name.encode() + b'\0' + path.read_bytes() + b'\0')
    digest.update(str(root).encode())
    return digest.hexdigest()


class Env:
    """Paths of a virtual environment, of its stamp and of its marker."""

    def __init__(self, root=ROOT):
        self.root = root
        self.folder = root / '.venv'
        self.python = self.folder / 'bin' / 'python'
        self.stamp = self.folder / '.mmkd_rl_setup.json'
        self.unfinished = self.folder / '.mmkd_rl_unfinished'

    def is_ready(self):
        """Whether set-up has finished with the present requirements."""
        try:
            stamp = json.loads(self.stamp.read_text())
        except (OSError, ValueError):
            return False
        return (self.python.exists() and not self.unfinished.exists()
                and stamp.get('fingerprint') == fingerprint(self.root)
                and (self.root / 'mmkd_rl/.mim/configs').exists())

    def write_stamp(self):
        """Write the stamp under another name first, and rename it: a stamp is
        complete or absent."""
        new = self.stamp.with_suffix('.new')
        new.write_text(json.dumps({'fingerprint': fingerprint(self.root)}))
        os.replace(str(new), str(self.stamp))


def check_python(version=None):
    """Check whether the packages support this Python.

    Args:
        version: Version of Python as a tuple; by default that of this one.

    Raises:
        SetupError: The version is not supported.
    """
    version = tuple(version or sys.version_info)[:2]
    if OLDEST <= version <= NEWEST:
        return
    others = [f'python{OLDEST[0]}.{minor}'
              for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
    found = [name for name in others if shutil.which(name)]
    if found:
        advice = 'This machine has {0}: make setup PYTHON={0}'.format(found[0])
    else:
        advice = 'Install one, and name it: make setup PYTHON=python3.12'
    raise SetupError(
        'Python {}.{} at {} is not supported; {}.{} to {}.{} are. {}'.format(
            *(version + (sys.executable, ) + OLDEST + NEWEST), advice))


def check_machine():
    """Check whether the operators of mmcv can be compiled.

    Raises:
        SetupError: The venv module, a compiler or the headers are missing.
    """
    name = f'python{sys.version_info[0]}.{sys.version_info[1]}'
    missing = []
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        missing.append(('the modules venv and ensurepip', name + '-venv'))
    for command in ('gcc', 'g++'):
        if not shutil.which(os.environ.get(
                {'gcc': 'CC', 'g++': 'CXX'}[command], command).split()[0]):
            missing.append(('the compiler ' + command, command))
    header = Path(sysconfig.get_paths()['include'], 'Python.h')
    if not header.exists():
        missing.append((f'the headers of Python ({header})', name + '-dev'))
    if missing:
        raise SetupError(
            'This machine lacks ' + ', '.join(what for what, _ in missing)
            + '. On Debian or Ubuntu: sudo apt-get install '
            + ' '.join(package for _, package in missing)
            + ' (elsewhere the packages have similar names). '
            'Then run the same command again.')
    free = shutil.disk_usage(str(ROOT)).free / 1e9
    if free < 8:
        say(f'only {free:.1f} GB free on this disk; about 8 are needed '
            '(5 for torch with CUDA)')


def run(command, what, env=None, quiet=True, progress=None):
    """Run a command; if it fails, print the end of its output.

    Args:
        command: Program and arguments.
        what: Description of the command, for the message.
        env: Environment variables of the command; by default those of this
            process.
        quiet: Do not show the output.
        progress: Pattern in the output with two groups, steps done and all
            steps; the last match is shown once a minute.

    Returns:
        The output; empty if not ``quiet``.

    Raises:
        SetupError: The command failed.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([str(part) for part in command],
                                   cwd=str(ROOT), env=env,
                                   stdin=subprocess.DEVNULL,
                                   stdout=log if quiet else None,
                                   stderr=subprocess.STDOUT
                                   if quiet else None)
        try:
            while True:
                try:
                    status = process.wait(60 if progress else None)
                    break
                except subprocess.TimeoutExpired:
                    # pread: the child writes at the shared file position.
                    end = os.fstat(log.fileno()).st_size
                    text = os.pread(log.fileno(), 100000,
                                    max(0, end - 100000))
                    steps = progress.findall(text.decode(errors='replace'))
                    if steps:
                        say('  step {} of {}'.format(*steps[-1]))
        except BaseException:
            process.terminate()
            process.wait()
            raise
        log.seek(0)
        output = log.read().decode(errors='replace')
    if status:
        tail = '\n'.join(output.strip().splitlines()[-40:])
        if tail:
            print(tail, file=sys.stderr, flush=True)
        raise SetupError(f'{what} failed (exit code {status}); the reason '
                         'stands above. When it is put right, run the same '
                         'command again.')
    return output


def make_venv(env):
    """Make ``.venv`` with pip and uv, unless a finished one is there."""
    if env.unfinished.exists():
        say('the last set-up did not finish: starting .venv afresh')
        shutil.rmtree(str(env.folder))
    if not env.python.exists():
        say('making .venv with Python ' + sys.version.split()[0])
        env.folder.mkdir(parents=True, exist_ok=True)
        # The marker is made first: an interrupted `venv` leaves a folder that
        # looks complete.
        env.unfinished.touch()
        run([sys.executable, '-m', 'venv', env.folder], 'python -m venv')
    probe = subprocess.call([str(env.python), '-m', 'uv', '--version'],
                            stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)
    if probe:
        run([env.python, '-m', 'pip', 'install', '--quiet',
             '--disable-pip-version-check', UV], 'installing uv')


def uv_install(env, *arguments, **variables):
    """Run ``uv pip install`` for ``.venv``, with the constraints file.

    Args:
        env: The environment.
        *arguments: Further arguments of the command.
        **variables: Further environment variables.
    """
    environ = dict(os.environ, VIRTUAL_ENV=str(env.folder), **variables)
    # Files of a cache on another disk cannot be hard-linked. With the mode
    # "copy" uv prints no warning about that.
    environ.setdefault('UV_LINK_MODE', 'hardlink' if _same_disk(env)
                       else 'copy')
    what = 'installing ' + ' '.join(
        str(a) for a in arguments if not str(a).startswith('-'))
    return run([env.python, '-m', 'uv', 'pip', 'install', '--quiet',
                '--python', env.python, '--constraint',
                ROOT / 'requirements' / 'constraints.txt'] + list(arguments),
               what, environ)


def _same_disk(env):
    cache = Path(os.environ.get('UV_CACHE_DIR')
                 or Path(os.environ.get('XDG_CACHE_HOME')
                         or Path.home() / '.cache') / 'uv')
    while not cache.exists() and cache != cache.parent:
        cache = cache.parent
    return os.stat(str(cache)).st_dev == os.stat(str(env.folder)).st_dev


def pin(name, file):
    """Pinned requirement ``name==version`` of requirements/<file>.txt."""
    text = (ROOT / 'requirements' / (file + '.txt')).read_text()
    for line in text.splitlines():
        if line.startswith(name + '=='):
            return line.split('#')[0].strip()
    raise SetupError(f'requirements/{file}.txt does not pin {name}')


def operators_load(env):
    """Whether mmcv's compiled operators can be imported."""
    return subprocess.call(
        [str(env.python), '-c', 'import torch, mmcv._ext'], cwd='/',
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def wheel_folder(requirement):
    """Folder of the compiled wheel; its name has the versions of mmcv, torch
    and Python, and torch's backend (CPU or CUDA)."""
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    key = '-'.join([requirement.replace('==', '-'),
                    pin('torch', 'runtime').replace('==', '-'),
                    os.environ.get('UV_TORCH_BACKEND', 'default'),
                    sys.implementation.cache_tag])
    return cache / 'mmkd_rl' / key


def compile_operators(env, requirement, folder):
    """Build the wheel of onedl-mmcv with its compiled operators.

    CFLAGS replaces the flags that Python itself was built with: without debug
    information the build takes less than half the time; without -O3 the
    operators would be slow. The wheel is stored in ``folder``, since uv
    caches it only if the package index allows that. It is moved there when it
    is complete.
    """
    jobs = int(os.environ.get('MMKD_RL_JOBS', len(os.sched_getaffinity(0))))
    say(f'compiling the detection operators of {requirement}: about '
        f'{max(1, round(12 / jobs))} min with {jobs} idle core(s), once (the '
        f'result is kept in {folder})')
    environ = dict(os.environ, CFLAGS='-O3 -DNDEBUG -g0', MAX_JOBS=str(jobs),
                   PATH=str(env.folder / 'bin') + os.pathsep
                   + os.environ.get('PATH', ''))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=str(folder.parent)) as build:
        run([env.python, '-m', 'pip', 'wheel', '-v', '--no-deps',
             '--no-build-isolation', '--no-cache-dir',
             '--disable-pip-version-check', '--wheel-dir', build,
             requirement], 'compiling ' + requirement, environ,
            progress=re.compile(r'\[(\d+)/(\d+)\] '))
        shutil.rmtree(str(folder), ignore_errors=True)
        folder.mkdir()
        for wheel in Path(build).glob('*.whl'):
            os.replace(str(wheel), str(folder / wheel.name))


def install_operators(env):
    """Install onedl-mmcv with its compiled operators."""
    if operators_load(env):
        return
    requirement = pin('onedl-mmcv', 'mminstall')
    folder = wheel_folder(requirement)
    kept = sorted(folder.glob('*.whl'))
    if kept:
        uv_install(env, '--reinstall-package', 'onedl-mmcv', kept[0])
        if operators_load(env):
            return
        say(f'the compiled {requirement} in {folder} does not fit this torch')
    compile_operators(env, requirement, folder)
    uv_install(env, '--reinstall-package', 'onedl-mmcv',
               *sorted(folder.glob('*.whl')))
    # check_env.py reports whether the operators work now.


def set_up(env):
    """Run all steps and check the environment.

    Raises:
        SetupError: A step or the check failed.
    """
    start = time.time()
    check_python()
    check_machine()
    make_venv(env)
    if env.stamp.exists():
        env.stamp.unlink()
    env.unfinished.touch()
    say('installing torch and torchvision (about 5 GB with CUDA; a minute or '
        'more where they must be downloaded)')
    # In one call, so that uv resolves a matching pair.
    uv_install(env, '-r', 'requirements/build.txt', pin('torch', 'runtime'),
               pin('torchvision', 'runtime'))
    install_operators(env)
    say('installing the rest of requirements/')
    files = []
    for name in ('runtime', 'mminstall', 'tools', 'tests', 'docs',
                 'optional'):
        files += ['-r', f'requirements/{name}.txt']
    uv_install(env, *files)
    uv_install(env, '--no-deps', '--no-build-isolation', '-e', '.')
    say('checking (the first import of everything takes a while)')
    # Python writes compiled modules into .venv, even if the user has turned
    # that off: otherwise every later command compiles all modules again,
    # which takes longer than most commands.
    environ = {k: v for k, v in os.environ.items()
               if k != 'PYTHONDONTWRITEBYTECODE'}
    run([env.python, 'tools/check_env.py'], 'the check', environ, quiet=False)
    env.unfinished.unlink()
    env.write_stamp()
    say(f'ready after {time.time() - start:.0f} s: . .venv/bin/activate')


def set_up_lint(env):
    """Install only ruff into ``.venv``, and write no stamp."""
    if (env.folder / 'bin' / 'ruff').exists():
        return
    check_python()
    fresh = env.unfinished.exists() or not env.python.exists()
    make_venv(env)
    uv_install(env, pin('ruff', 'tests'))
    if fresh:
        env.unfinished.unlink()


def main():
    parser = argparse.ArgumentParser(
        description='Make .venv and install everything into it.')
    parser.add_argument('--lint', action='store_true',
                        help='only what `make lint` needs')
    parser.add_argument('--force', action='store_true',
                        help='run all steps, even if set-up has finished '
                        'before')
    args = parser.parse_args()
    env = Env()
    if env.is_ready() and not args.force:
        return 0
    try:
        # If two processes set up at once, the second one waits and then finds
        # everything done. The lock ends with the process.
        with open(__file__) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if args.lint:
                set_up_lint(env)
            elif args.force or not env.is_ready():
                set_up(env)
    except SetupError as error:
        print(f'[setup] {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\n[setup] stopped; run the same command again to repair and '
              'finish', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
