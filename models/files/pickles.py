"""Read pickles as data: no function that a pickle names is ever looked up or called.

The user of `PickleReader` defines what replaces a call. Memory is bounded by the pickle's size and by the number of its
instructions, each of which may create an object.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any


class PickleError(ValueError):
    """A pickle names something that is not allowed, or is damaged."""


@dataclass(frozen=True)
class Named:
    """A function or class that a pickle names, as 'module.name'."""

    name: str


@dataclass(frozen=True, eq=False)
class Outside:
    """A persistent object outside the pickle, under a key that the pickle's writer chose."""

    key: Any


_MOST_INSTRUCTIONS = 2_000_000
"""Limit of instructions per pickle; a tensor takes about forty."""

_MAPPINGS = ("collections.OrderedDict", "collections.defaultdict")

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": list}
_LITERALS = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_FIXED = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_TO_MARK: dict[str, Callable[[list[Any]], Any]] = {
    "TUPLE": tuple,
    "LIST": list,
    "FROZENSET": list,
    "DICT": lambda items: _mapping(zip(items[::2], items[1::2], strict=True)),
}


@dataclass
class PickleReader:
    """Reader of untrusted pickles; `outside` collects the keys of persistent objects."""

    is_known: Callable[[str], bool]
    """Whether a pickle may name a function or class, such as `collections.OrderedDict`."""
    make: Callable[[str, tuple[Any, ...]], Any]
    """Replacement for a call: (name of the function or class, arguments) -> object."""
    outside: list[Any] = field(default_factory=list)

    def read(self, file: Any) -> Any:
        """Read the pickle at a file's current position, and leave the file at the pickle's end.

        Raises:
            PickleError: an instruction, a name or a key is not allowed, or the pickle is damaged.
        """
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        for opcode, arg, _ in islice(pickletools.genops(file), _MOST_INSTRUCTIONS):
            self._step(opcode.name, arg)
        if opcode.name != "STOP":
            raise PickleError(f"it holds more than {_MOST_INSTRUCTIONS} instructions")
        return self._stack.pop()

    def _step(self, name: str, arg: Any) -> None:
        stack = self._stack
        if name in _LITERALS:
            stack.append(arg)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _FIXED:
            stack.append(tuple(self._pop(_FIXED[name])))
        elif name in _TO_MARK:
            stack.append(_TO_MARK[name](self._pop_to_mark()))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self._memo[len(self._memo) if arg is None else arg] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[arg])
        elif name not in ("PROTO", "FRAME", "STOP"):
            self._act(name, arg)

    def _act(self, name: str, arg: Any) -> None:
        stack = self._stack
        if name == "MARK":
            self._marks.append(len(stack))
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = self._pop(1) if name == "APPEND" else self._pop_to_mark()
            _extend(stack[-1], items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop(2) if name == "SETITEM" else self._pop_to_mark()
            _update(stack[-1], items)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(self._named(arg.split(" ") if name == "GLOBAL" else self._pop(2)))
        elif name in ("REDUCE", "NEWOBJ"):
            stack.append(self._called(*self._pop(2)))
        elif name == "BINPERSID":
            self.outside.append(stack.pop())
            stack.append(Outside(self.outside[-1]))
        elif name == "BUILD":
            self._pop(1)  # attributes of an object, which are not needed
        else:
            raise PickleError(f"it holds the instruction {name}")

    def _pop(self, count: int) -> list[Any]:
        found = self._stack[-count:]
        if len(found) < count:
            raise PickleError("it ends too early")
        del self._stack[-count:]
        return found

    def _pop_to_mark(self) -> list[Any]:
        start = self._marks.pop()
        found = self._stack[start:]
        del self._stack[start:]
        return found

    def _named(self, parts: list[Any]) -> Named:
        if not all(isinstance(part, str) for part in parts):
            raise PickleError("it names a function by what is no text")
        name = ".".join(parts)
        if not self.is_known(name):
            raise PickleError(f"it asks to run {name}")
        return Named(name)

    def _called(self, function: Any, args: Any) -> Any:
        if not isinstance(function, Named) or not isinstance(args, tuple):
            raise PickleError("it calls what is no function")
        if function.name in _MAPPINGS:
            return _mapping(args[0] if args and isinstance(args[0], list) else [])
        return self.make(function.name, args)


def _mapping(pairs: Any) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, value in pairs:
        _update(found, [key, value])
    return found


def _update(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict):
        raise PickleError("it sets items of what is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # A deeply nested key would overflow the interpreter's stack when it is hashed.
        if not isinstance(key, str | int | float | bytes | Named | None):
            raise PickleError(f"it holds a key of type {type(key).__name__}")
        target[key] = value


def _extend(target: Any, items: list[Any]) -> None:
    if not isinstance(target, list):
        raise PickleError("it appends to what is no list")
    target.extend(items)
