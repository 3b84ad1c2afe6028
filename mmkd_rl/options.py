"""Checks the options of a config against the signature of the part that they
are for.

Types, ranges and choices are declared where the options are:
``temperature: Annotated[float, Field(gt=0)] = 4.``. All problems of a part are
in one message.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import types
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import (
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

_WORDS = {
    int: 'a whole number', float: 'a number', bool: 'True or False',
    str: 'a string', dict: 'a dict', type(None): 'None'
}


class ConfigError(ValueError, TypeError):
    """An option of a config cannot be used as it is written.

    Both a ValueError and a TypeError, since which of the two it is depends on
    the option alone.
    """


def problems(part: Callable[..., Any], options: dict, key: str,
             given: Iterable[str] = ()) -> list[str]:
    """Check the options of a part against its signature.

    Args:
        part: The class, or a function.
        options: The user's arguments.
        key: The key under which they stand.
        given: Names of arguments that the user does not give.

    Returns:
        A message for each option that is unknown or has a wrong value.
    """
    found = []
    takes = option_names(part)
    if takes is not None:
        takes = [name for name in takes if name not in set(given)]
        unknown = [o for o in options if o not in takes]
        if unknown:
            found.append(unknown_options(unknown, key, part.__name__, takes))
    elif '_delete_' in options:
        found.append(unknown_options(['_delete_'], key, part.__name__, []))
    hints = _hints(part)
    for name, value in options.items():
        if takes is not None and name not in takes:
            continue
        problem = _problem(hints.get(name, Any), value)
        if problem:
            found.append(f'{key}.{name} must be {problem}, got {value!r}')
    return found


def unknown_options(unknown: Iterable[str], key: str, name: str,
                    takes: Sequence[str]) -> str:
    """Says that a part has no such options, what it has, and the nearest.

    Args:
        unknown: Names of options that the part does not accept.
        key: The key under which the options stand.
        name: The part's name.
        takes: Names of the options that the part accepts.
    """
    unknown = list(unknown)
    if '_delete_' in unknown:
        return (f'{key} has _delete_: `_delete_=True` in {key} replaces a key '
                'of a base config, and no base has it: remove it')
    near = {
        o: difflib.get_close_matches(o, takes, n=1, cutoff=0.6)
        for o in unknown
    }
    hints = [f'did you mean {n[0]!r}?' for n in near.values() if n]
    return (f'{key}: {name} has no option {", ".join(map(repr, unknown))}; it '
            f'takes {list(takes)}' + '; '.join(['', *hints]))


def parse_options(words: Iterable[str], key: str,
                  example: str) -> dict[str, Any]:
    """Options from words of a command line.

    >>> parse_options(['rate=.5', 'how=sum'], 'term', 'rate=1')
    {'rate': 0.5, 'how': 'sum'}

    Args:
        words: ``OPTION=VALUE`` each; a value that is no Python literal is a
            string.
        key: What the words belong to, for messages.
        example: How it is written, likewise.

    Raises:
        ConfigError: A word without a name or without ``=``.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition('=')
        if not name.isidentifier() or not equals:
            raise ConfigError(f'{key}: {word!r} is no OPTION=VALUE; write '
                              f'{example}')
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = value
    return options


def option_names(part: Callable[..., Any]) -> list[str] | None:
    """The arguments that a class or a function takes, those that it hands on
    to its base classes included; ``None``: any, or not to be found out.

    A base's argument that only its subclasses set is named in the attribute
    ``not_options`` of the class.
    """
    names: dict[str, None] = {}
    for _, parameters in _signatures(part):
        if parameters is None:
            return None
        names.update({
            p.name: None
            for p in parameters
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        })
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            hidden = getattr(part, 'not_options', ())
            return [name for name in names if name not in hidden]
    return None


def _signatures(part: Callable[..., Any]):
    """Constructors of a class and its bases, or the function itself, with
    their parameters; ``None``: not to be found out."""
    chain = [
        vars(c)['__init__'] for c in inspect.getmro(part)
        if '__init__' in vars(c)
    ] if inspect.isclass(part) else [part]
    for call in chain:
        try:
            parameters = list(inspect.signature(call).parameters.values())
        except (TypeError, ValueError):
            yield call, None
            return
        yield call, parameters if call is part else parameters[1:]


@lru_cache(maxsize=256)
def _hints(part: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of all options, the nearest class's first. Parts of other
    packages declare theirs too loosely to be held to them."""
    if not getattr(part, '__module__', '').startswith('mmkd_rl.'):
        return {}
    hints: dict[str, Any] = {}
    for call, parameters in _signatures(part):
        if parameters is None:
            break
        try:
            found = get_type_hints(call, include_extras=True)
        except (NameError, TypeError):  # a name of type checking only
            continue
        hints = {**found, **hints}
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            break
    return hints


@lru_cache(maxsize=256)
def _adapter(hint: Any) -> TypeAdapter | None:
    try:
        return TypeAdapter(hint, config=ConfigDict(
            strict=True, arbitrary_types_allowed=True))
    except PydanticUserError:  # of a class that pydantic does not know
        return None


def _problem(hint: Any, value: Any) -> str:
    """Description of the values that an option takes, if ``value`` is none of
    them; else an empty string."""
    if hint is Any:
        return ''
    try:
        adapter = _adapter(hint)
    except TypeError:  # an annotation that cannot be hashed
        return ''
    if adapter is None:
        return ''
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        return _expected(hint, error)
    return ''


def _expected(hint: Any, error: ValidationError) -> str:
    """In the field's words: 'a number > 0', "one of 'unit', 'paper'"."""
    limits = [_limit(e) for e in error.errors()]
    if len(limits) == 1 and limits[0]:
        return limits[0]
    return _words(hint)


def _limit(error: Any) -> str:
    """Of a value of the right type outside its range."""
    context = error.get('ctx', {})
    for name, sign in (('gt', '>'), ('ge', '>='), ('lt', '<'), ('le', '<=')):
        if name in context:
            return f'{sign} {context[name]:g}'
    return ''


def _words(hint: Any) -> str:
    if hint in _WORDS:
        return _WORDS[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _words(arguments[0])
    if origin is Literal:
        return 'one of ' + ', '.join(map(repr, arguments))
    if origin in (Union, types.UnionType):
        return ' or '.join(map(_words, arguments))
    if origin is dict:
        return 'a dict'
    if inspect.isclass(origin) and issubclass(origin, Iterable):
        inner = [a for a in arguments if a is not ...]
        return 'a list' + (f', each {_words(inner[0])}' if inner else '')
    return getattr(hint, '__name__', str(hint))
