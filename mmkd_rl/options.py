"""Checks the options of a config against the signatures of its parts.

Types, ranges and choices are declared in the signature of the part:
``temperature: Positive = 4.``, ``scale: Literal['unit', 'paper'] = 'unit'``.
A class derived from :class:`Checked` is checked whenever it is built: by our
registries, by MMEngine's, by Python code. All problems of a part are in one
:class:`ConfigError`.
"""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import math
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
from pydantic import ByteSize, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

# Ranges of numbers; infinity and NaN are refused in all of them.
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
#: [0, 1), such as a momentum.
BelowOne = Annotated[float, Field(ge=0, lt=1)]
#: (0, 1].
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]

#: The key of an option, relative to the part that checks it, and the message.
Problem = tuple[str, str]

_Function = TypeVar('_Function', bound=Callable[..., Any])
_WORDS = {
    int: 'a whole number', float: 'a number', bool: 'True or False',
    str: 'a string', dict: 'a dict', type(None): 'None',
    ByteSize: "a size such as '2GB'"
}


class ConfigError(ValueError, TypeError):
    """Options of a config cannot be used as they are written.

    >>> try:
    ...     with under('model.weighting'):
    ...         raise ConfigError('C', 'must be >= 1 / 3, got 0.2')
    ... except ConfigError as error:
    ...     print(error)
    model.weighting.C must be >= 1 / 3, got 0.2

    Both a ValueError and a TypeError, since which of the two it is depends on
    the option alone.

    Args:
        *problem: The name of the option, without the key of the part: a part
            does not know where it is used, and the code that builds the part
            adds its key, see :func:`under`. Then the message: ``'must be
            ...'``, or a sentence. A message alone is about the whole part.

    Attributes:
        problems: All problems.
    """

    def __init__(self, *problem: str) -> None:
        super().__init__(*problem)
        *key, text = problem
        self.problems: tuple[Problem, ...] = ((''.join(key), text), )

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> ConfigError:
        """One error of several problems."""
        error = cls('')
        error.problems = tuple(problems)
        return error

    def __str__(self) -> str:
        """A line for each problem."""
        return '\n'.join(
            text if not key else
            f'{key}{" " if text.startswith("must ") else ": "}{text}'
            for key, text in self.problems)


@contextmanager
def under(key: str) -> Iterator[None]:
    """Put a part's key in front of the keys of its problems.

    Args:
        key: Key of the part in the config.

    Raises:
        ConfigError: The error raised in the block, with the longer keys.
    """
    try:
        yield
    except ConfigError as error:
        # The same error: its traceback ends where the problem was found.
        error.problems = tuple(
            (below(key, name), text) for name, text in error.problems)
        raise


def below(key: str, name: str) -> str:
    """The key of an option in a part."""
    return f'{key}.{name}' if key and name else key or name


class Checked:
    """Base of classes whose options are checked before the constructor runs.

    In messages the class's name is used as key, unless the class is built by
    a registry that gives one.
    """

    #: Options that are parts: for each the registry, the default type, and
    #: names of the part's arguments that are no options.
    nested: dict[str, tuple[Any, Any, tuple[str, ...]]] = {}
    #: Arguments that only subclasses set.
    not_options: tuple[str, ...] = ()
    #: Whether the class accepts options that no signature names.
    takes_any: bool = False

    def __new__(cls, *args: Any, **kwargs: Any):
        """Check the arguments.

        Raises:
            ConfigError: Arguments are wrong; the message lists all problems.
        """
        _check_call(cls, args, kwargs)
        return super().__new__(cls)


def checked(call: _Function) -> _Function:
    """Decorator: check a function's arguments as :class:`Checked` does."""
    @functools.wraps(call)
    def run(*args: Any, **kwargs: Any) -> Any:
        _check_call(call, args, kwargs)
        with under(call.__name__):
            return call(*args, **kwargs)

    return cast(_Function, run)


def _check_call(part: Callable[..., Any], args: tuple, kwargs: dict) -> None:
    """Check the arguments of a call; the key is the part's name."""
    _, _, parameters = next(_signatures(part))
    names = [p.name for p in parameters or ()]
    found = problems(part, {**dict(zip(names, args)), **kwargs})
    if found:
        raise ConfigError.of(
            (name and f'{part.__name__}.{name}', text) for name, text in found)


def check(part: Callable[..., Any], options: dict,
          given: Iterable[str] = ()) -> None:
    """Check the options of a part, see :func:`problems`.

    Raises:
        ConfigError: Options are unknown or have wrong values.
    """
    found = problems(part, options, given)
    if found:
        raise ConfigError.of(found)


def problems(part: Callable[..., Any], options: dict,
             given: Iterable[str] = ()) -> list[Problem]:
    """Check the options of a part against its signature.

    Args:
        part: The class, or a function.
        options: The user's arguments.
        given: Names of arguments that the user does not give.

    Returns:
        One problem for each option that has a wrong value, and one for all
        unknown options together.
    """
    found: list[Problem] = []
    takes = option_names(part, given)
    if '_delete_' in options:
        found.append(('_delete_', 'replaces a key of a base config, and no '
                      'base has this one; remove it'))
    elif takes is not None and (unknown := [o for o in options
                                            if o not in takes]):
        found.append(('', unknown_options(
            unknown, part.__name__,
            [*takes, *getattr(part, 'further_options', ())])))
    hints = _hints(part)
    for name, value in options.items():
        if name in hints and (takes is None or name in takes):
            text = _problem(hints[name], value)
            if text:
                found.append((name, text))
    return found


def unknown_options(unknown: Iterable[str], name: str,
                    takes: Sequence[str]) -> str:
    """Message about unknown options: valid options and closest matches.

    Args:
        unknown: Names of options that the part does not accept.
        name: The part's name.
        takes: Names of the options that the part accepts.
    """
    unknown = list(unknown)
    return (f'{name} has no option {", ".join(map(repr, unknown))}; it takes '
            f'{list(takes)}' + ''.join(nearest(o, takes) for o in unknown))


def nearest(word: Any, known: Iterable[str]) -> str:
    """Suggestion of the closest known word, for the end of a message."""
    near = difflib.get_close_matches(str(word), list(known), n=1)
    return f'; did you mean {near[0]!r}?' if near else ''


def parse_options(words: Iterable[str], key: str,
                  example: str) -> dict[str, Any]:
    """Options from words of a command line.

    >>> parse_options(['rate=.5', 'how=sum'], 'term', 'rate=1')
    {'rate': 0.5, 'how': 'sum'}

    Args:
        words: ``OPTION=VALUE`` each; a value that is no Python literal is a
            string.
        key: Key for messages.
        example: A correct example, for messages.

    Raises:
        ConfigError: A word without a name or without ``=``.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition('=')
        if not name.isidentifier() or not equals:
            raise ConfigError(key, f'{word!r} is not of the form '
                              f'OPTION=VALUE; write it like {example}')
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = value
    return options


def option_names(part: Callable[..., Any],
                 given: Iterable[str] = ()) -> list[str] | None:
    """Names of the arguments that a class or a function takes, including those
    that it passes on to its base classes; ``None``: any, or unknown.

    Args:
        part: The class, or a function.
        given: Names of arguments to leave out.
    """
    if getattr(part, 'takes_any', False):
        return None
    names: dict[str, None] = {}
    for _, _, parameters in _signatures(part):
        if parameters is None:
            return None
        names.update({
            p.name: None
            for p in parameters
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        })
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            hidden = (*given, *getattr(part, 'not_options', ()))
            return [name for name in names if name not in hidden]
    return None


def _signatures(part: Callable[..., Any]):
    """Yield owner, callable and parameters of each constructor that gets the
    arguments of a class (its own, then those of bases that ``**kwargs`` are
    passed on to), or of a function. Parameters are ``None`` if unknown."""
    chain = [(c, vars(c)['__init__']) for c in inspect.getmro(part)
             if '__init__' in vars(c)] if inspect.isclass(part) else [
                 (part, part)]
    if chain[0][0] is object:
        yield object, chain[0][1], []  # the class takes no arguments
        return
    for owner, call in chain:
        try:
            parameters = list(inspect.signature(call).parameters.values())
        except (TypeError, ValueError):
            yield owner, call, None
            return
        yield owner, call, parameters if call is part else parameters[1:]
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            return


@functools.lru_cache(maxsize=256)
def _hints(part: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of all options; a subclass's annotation counts before its
    base's. Annotations of other packages are too loose to be checked."""
    hints: dict[str, Any] = {}
    for owner, call, _ in _signatures(part):
        ours = owner.__module__.startswith('mmkd_rl.') or (
            inspect.isclass(owner) and issubclass(owner, Checked))
        if ours:
            hints = {**get_type_hints(call, include_extras=True), **hints}
    return hints


@functools.lru_cache(maxsize=256)
def _adapter(hint: Any) -> TypeAdapter | None:
    try:
        return TypeAdapter(hint, config=ConfigDict(
            strict=True, allow_inf_nan=False, arbitrary_types_allowed=True))
    except PydanticUserError:  # of a class that pydantic does not know
        return None


def _problem(hint: Any, value: Any) -> str:
    """Message about a wrong value, or ``''``. NumPy's numbers are treated as
    Python's."""
    adapter = _adapter(hint)
    if adapter is None:
        return ''
    plain = value.item() if isinstance(value, np.generic) else value
    try:
        adapter.validate_python(plain)
    except ValidationError:
        infinite = isinstance(plain, float) and not math.isfinite(plain)
        return (f'must be {_words(hint, plain)}, got {value!r}' +
                (', which is not finite' if infinite else '') +
                (nearest(value, _choices(hint))
                 if isinstance(value, str) else ''))
    return ''


def _words(hint: Any, value: Any) -> str:
    """Description of the valid values: 'a number > 0', just '> 0' if ``value``
    is a number, "one of 'a', 'b'"."""
    if hint in _WORDS:
        return _WORDS[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        kind, limits = arguments[0], _range(arguments[1:])
        if length := _length(arguments[1:]):
            return _words(kind, value).replace('a list', f'a list {length}', 1)
        return limits if limits and not _problem(kind, value) else \
            f'{_words(kind, value)} {limits}'.rstrip()
    if origin is Literal:
        return ('one of ' if arguments[1:] else '') + ', '.join(
            map(repr, arguments))
    if origin in (Union, types.UnionType):
        return ' or '.join(_words(a, value) for a in arguments)
    if origin is dict:
        return 'a dict'
    if inspect.isclass(origin) and issubclass(origin, Iterable):
        inner = [a for a in arguments if a is not ...]
        return 'a list' + (f', each {_words(inner[0], value)}'
                           if inner else '')
    return getattr(hint, '__name__', str(hint))


def bounds(fields: Iterable[Any]) -> dict[str, float]:
    """The range that an annotation declares: ``gt``, ``ge``, ``lt``, ``le``.

    Args:
        fields: The metadata behind the type in ``Annotated[...]``.
    """
    return {
        sign: getattr(limit, sign)
        for field in fields for limit in getattr(field, 'metadata', ())
        for sign in ('gt', 'ge', 'lt', 'le') if hasattr(limit, sign)
    }


def _range(fields: Sequence[Any]) -> str:
    """The range as text: '> 0', 'in [0, 1)'; empty: all numbers."""
    found = bounds(fields)
    if len(found) == 2:
        low, high = ('[' if 'ge' in found else '('), (
            ']' if 'le' in found else ')')
        least, most = found.values()
        return f'in {low}{least:g}, {most:g}{high}'
    signs = {'gt': '>', 'ge': '>=', 'lt': '<', 'le': '<='}
    return ''.join(f'{signs[s]} {value:g}' for s, value in found.items())


def _length(fields: Sequence[Any]) -> str:
    """The number of values of a list, as text: 'of 2 or 3 values'; empty: any
    number."""
    found = {bound: getattr(limit, bound) for field in fields
             for limit in getattr(field, 'metadata', ())
             for bound in ('min_length', 'max_length')
             if hasattr(limit, bound)}
    least, most = found.get('min_length'), found.get('max_length')
    if least is None or most is None:
        return '' if not found else f'of at least {least} values' \
            if most is None else f'of at most {most} values'
    return f'of {least} values' if least == most else \
        f'of {least} to {most} values'


def _choices(hint: Any) -> list[str]:
    """Strings that an annotation allows."""
    return [a for a in get_args(hint) if isinstance(a, str)] if get_origin(
        hint) is Literal else [
            c for a in get_args(hint) for c in _choices(a)]
