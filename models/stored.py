"""Tensors in files that are not trusted: what a file claims is known, and checked, before a tensor of it is read.

Formats: safetensors, `torch.save`, and `torch.save` before PyTorch 1.6. The last two hold a pickle, which is read as
data (`pickles`), so that no file runs code. Tensors are read from a map of the file, one by one: whatever it claims,
nothing is taken up but what is asked for.
"""

import os
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from io import BytesIO
from math import prod
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from .pickles import Named, Outside, PickleError, PickleReader

_EXPECTED = "expected a safetensors file or a torch.save state dict"


class WeightsError(ValueError):
    """A weights file that cannot be read, would run code, or does not fit the network."""


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in a file, which is read when it is asked for."""

    dtype: torch.dtype | None
    """None for one that has no plain values; `kind` then says why."""
    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    kind: str = ""


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """What a file holds, with `StoredTensor` for tensors; raises `WeightsError` for whatever is wrong with it."""
    try:
        _check_regular(path)
        with path.open("rb") as file:
            content = mmap(file.fileno(), 0, access=ACCESS_COPY)
            if content[8:9] == b"{":
                with safe_open(path, "pt") as opened:
                    yield {key: _of_safetensors(opened, key) for key in opened.keys()}  # noqa: SIM118 (no mapping)
            elif content[:4] == b"PK\x03\x04":
                yield _of_archive(content, zipfile.ZipFile(file).infolist())
            else:
                yield _of_old_file(content)
    except WeightsError:
        raise
    except PickleError as error:
        raise WeightsError(
            f"weights {path} refused: {error}, expected tensors only; save the model's state_dict() again, as "
            "safetensors or with torch.save"
        ) from error
    except Exception as error:  # a damaged file raises whatever it makes its readers raise
        raise WeightsError(f"weights {path} cannot be read: {_first_line(error)}") from error


def _check_regular(path: Path) -> None:
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        reason = "" if isinstance(error, FileNotFoundError) else f" ({getattr(error, 'strerror', '') or error})"
        raise WeightsError(f"weights {path} not found{reason}; {_EXPECTED}") from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise WeightsError(f"weights {path} is {kind}; {_EXPECTED}")
    if not found.st_size:
        raise WeightsError(f"weights {path} cannot be read: the file is empty; {_EXPECTED}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


_SAFETENSORS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}


def _of_safetensors(opened: Any, key: str) -> StoredTensor:
    view = opened.get_slice(key)
    name = view.get_dtype()
    dtype = _SAFETENSORS.get(name)
    return StoredTensor(dtype, tuple(view.get_shape()), partial(opened.get_tensor, key), "" if dtype else name)


@dataclass
class _Storage:
    """A part of a file in which the values of tensors lie, in bytes."""

    content: mmap
    start: int
    length: int
    crc: int = 0
    """Check sum of the part; 0 where none was written."""

    @cached_property
    def part(self) -> memoryview:
        """The bytes, once they are found to lie in the file and to be what was written."""
        if self.start + self.length > len(self.content):
            raise ValueError("it ends too early")
        part = memoryview(self.content)[self.start : self.start + self.length]
        if self.crc and zlib.crc32(part) != self.crc:
            raise ValueError("its check sum is wrong; the file is damaged")
        return part

    def view(self, dtype: torch.dtype, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        """A tensor in memory of its own; offset and strides are in elements."""
        if not prod(shape):
            return torch.empty(shape, dtype=dtype)
        last = offset + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))
        if (last + 1) * dtype.itemsize > len(self.part):
            raise ValueError(f"a tensor of {shape} lies outside its storage of {self.length} bytes")
        values = torch.frombuffer(self.part, dtype=dtype, count=self.length // dtype.itemsize)
        return values.as_strided(shape, stride, offset).clone(memory_format=torch.contiguous_format)


_MOST_OF_INDEX = 10**8
"""Bytes of the pickle that names the tensors."""


def _of_archive(content: mmap, entries: list[zipfile.ZipInfo]) -> Any:
    """Of a zip file, whose entries have to lie in the file as they are."""
    names = {entry.filename for entry in entries}
    folder = entries[0].filename.split("/")[0] if entries else ""
    if f"{folder}/data.pkl" not in names or f"{folder}/constants.pkl" in names:
        raise ValueError(f"it is an archive, but of a program or of something else; {_EXPECTED}")
    if len(names) < len(entries):
        raise ValueError("two entries of the archive have the same name")
    parts = {entry.filename: _of_entry(content, entry) for entry in entries}
    index, order = parts[f"{folder}/data.pkl"], parts.get(f"{folder}/byteorder")
    if order is not None:
        _check_order(bytes(order.part).decode())
    if index.length > _MOST_OF_INDEX:
        raise ValueError(f"its index is {index.length} bytes long, at most {_MOST_OF_INDEX} are read")
    storages = {name.removeprefix(f"{folder}/data/"): part for name, part in parts.items()}
    return PickleReader(_is_known, partial(_made, storages)).read(BytesIO(index.part))


def _of_entry(content: mmap, entry: zipfile.ZipInfo) -> _Storage:
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise ValueError(f"its entry {entry.filename} is compressed, which torch.save does not do")
    names = struct.unpack_from("<HH", content, entry.header_offset + 26)
    return _Storage(content, entry.header_offset + 30 + sum(names), entry.file_size, entry.CRC)


def _check_order(order: str) -> None:
    if order != sys.byteorder:
        raise ValueError(f"its bytes are in {order} order; save it again on a machine of {sys.byteorder} order")


_MAGIC = 0x1950A86A20F9469CFC6C


def _of_old_file(content: mmap) -> Any:
    """Of `torch.save` before PyTorch 1.6: five pickles, then one storage after the other, each behind its length."""
    storages: dict[str, _Storage] = {}
    reader = PickleReader(_is_known, partial(_made, storages))
    if content[:1] != b"\x80":
        raise ValueError(f"it is neither; {_EXPECTED}")
    if reader.read(content) != _MAGIC:
        raise ValueError(f"it is a pickle, but not of torch.save; {_EXPECTED}")
    _version, system, found, keys = (reader.read(content) for _ in range(4))
    _check_order("little" if system.get("little_endian", True) else "big")
    sizes = {pid[2]: _STORAGES[pid[1].name].itemsize for pid in reader.outside}
    start = content.tell()
    for key in keys:
        (count,) = struct.unpack_from("<q", content, start)
        storages[key] = _Storage(content, start + 8, count * sizes[key])
        start += 8 + count * sizes[key]
    return found


_STORAGES = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
        "QInt8": torch.int8,
        "QUInt8": torch.uint8,
        "QInt32": torch.int32,
    }.items()
} | {"torch.storage.UntypedStorage": torch.uint8}

_TENSORS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
_PARAMETERS = ("_rebuild_parameter", "_rebuild_parameter_with_state")
_KINDS = {
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_qtensor": "quantised",
    "_rebuild_meta_tensor_no_storage": "without values (of the meta device)",
    "_rebuild_wrapper_subclass": "of a subclass of Tensor",
    "_rebuild_nested_tensor": "nested",
    "_rebuild_device_tensor_from_numpy": "of another device",
    "_rebuild_device_tensor_from_cpu_tensor": "of another device",
}
_OF_TYPE = "torch._tensor._rebuild_from_type_v2"
_PLAIN = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
_INERT = (
    *("torch.Size", "torch.device", "torch.serialization._get_layout", "_codecs.encode"),
    *("collections.OrderedDict", "collections.defaultdict", "collections.Counter"),
    *(f"builtins.{name}" for name in ("set", "dict", "list", "complex", "bytearray", "int", "float", "bool", "str")),
    *(f"__builtin__.{name}" for name in ("set", "dict", "list", "int")),
)
"""What checkpoints name beside the weights; nothing of it is made."""

_VALUES = frozenset(
    f"torch.{name}" for name, value in vars(torch).items() if type(value) in (torch.dtype, torch.qscheme)
)


def _is_known(name: str) -> bool:
    base = name.removeprefix("torch._utils.")
    rebuilt = base != name and (base in _TENSORS or base in _PARAMETERS or base in _KINDS)
    return rebuilt or name in _STORAGES or name in _VALUES or name in _INERT or name in (*_PLAIN, _OF_TYPE)


def _made(storages: Mapping[str, _Storage], name: str, args: tuple[Any, ...]) -> Any:
    """What stands for a call in a pickle: a `StoredTensor` for what would be a tensor, None for anything else."""
    base = name.removeprefix("torch._utils.")
    if base in _PARAMETERS:
        return args[0]
    if base in _KINDS:
        return StoredTensor(None, (), _no_values, _KINDS[base])
    if name == _OF_TYPE:  # with attributes of its own, or of a subclass
        function, kind, arguments, *_ = args
        if kind.name in _PLAIN:
            return _made(storages, function.name, arguments)
        return StoredTensor(None, (), _no_values, f"of the subclass {kind.name}")
    return _tensor(storages, *args) if base in _TENSORS else None


def _tensor(
    storages: Mapping[str, _Storage], source: Any, offset: Any, shape: Any, stride: Any, *more: Any
) -> StoredTensor:
    """What `_rebuild_tensor…` would make of a storage; `more` ends with a data type and with what a view is."""
    dtypes = [getattr(torch, one.name.removeprefix("torch.")) for one in more if isinstance(one, Named)]
    views = more[-1] if len(more) > 2 and isinstance(more[-1], dict) else {}
    if not isinstance(source, Outside) or not all(map(_is_count, (offset, *shape, *stride))):
        raise ValueError("a tensor in it has no sizes or no values")
    _, kind, key, *_ = source.key
    dtype = dtypes[0] if dtypes else _STORAGES[kind.name]
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"a tensor in it is of type {dtype}")
    if views:
        return StoredTensor(None, (), _no_values, f"a view ({', '.join(map(str, views))})")
    return StoredTensor(dtype, tuple(shape), lambda: storages[key].view(dtype, offset, tuple(shape), tuple(stride)))


def _is_count(found: Any) -> bool:
    return type(found) is int and found >= 0


def _no_values() -> Tensor:
    raise ValueError("a tensor in it has no plain values")
