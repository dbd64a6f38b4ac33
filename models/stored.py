"""Read tensors from untrusted files: a file's index is read and checked before any of its tensors.

Formats: safetensors, `torch.save`, and `torch.save` before PyTorch 1.6. The last two contain a pickle, which is read as
data (`pickles`), so that no file can run code. Tensors are read one by one and only when requested, whatever a file
claims. Files are not memory-mapped: one that is truncated while being read would crash the process.
"""

import json
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
from io import BytesIO, FileIO
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import WeightsError
from .pickles import Named, Outside, PickleError, PickleReader

_EXPECTED = "expected a safetensors file or a torch.save state dict"


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in a file, loaded by `read`."""

    dtype: torch.dtype | None
    """None for a tensor without plain values; `kind` then names the reason."""
    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    kind: str = ""


class _File(FileIO):
    """A file with a size limit on its index (the part that names its tensors), whatever the file claims."""

    most = 2**24
    """Most bytes to read at once. Every byte of an index may become an object of about sixty bytes."""

    def read(self, count: int | None = -1) -> bytes:
        """Read like `FileIO.read`; `ValueError` beyond the size limit of an index."""
        wanted = self.most + 1 if count is None or count < 0 else min(count, self.most + 1)
        found = super().read(wanted) or b""
        if len(found) > self.most:
            raise ValueError(f"its index is longer than {self.most} bytes")
        return found

    def part(self, start: int, length: int) -> bytearray:
        """Read exactly `length` bytes, without size limit; `ValueError` if the file has fewer."""
        if not 0 <= start <= start + length <= self.state[0]:
            raise ValueError("it ends too early")
        found = bytearray(length)
        view, done = memoryview(found), 0
        self.seek(start)
        while done < length:
            count = self.readinto(view[done:])
            if not count:
                raise ValueError("it ends too early")
            done += count
        return found

    @property
    def state(self) -> tuple[int, int]:
        """(size in bytes, modification time in ns), to detect that the file was written to."""
        found = os.fstat(self.fileno())
        return found.st_size, found.st_mtime_ns


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """Open a weights file and yield its content, with a `StoredTensor` for each tensor.

    Tensors can be read only within the context.

    Raises:
        WeightsError: the file is missing, damaged, not allowed, or was changed within the context.
    """
    try:
        _check_regular(path)
        with _File(path) as file:
            before = file.state
            yield _read_index(file)
            if file.state != before:
                raise ValueError("it was changed meanwhile; try again")
    except WeightsError:
        raise
    except PickleError as error:
        raise WeightsError(
            f"weights {path} refused: {error}, expected tensors only; save the model's state_dict() again, as "
            "safetensors or with torch.save"
        ) from error
    except Exception as error:  # a damaged file can make the readers raise anything
        raise WeightsError(f"weights {path} cannot be read: {_first_line(error)}") from error


def _read_index(file: _File) -> Any:
    head = bytes(file.part(0, min(9, file.state[0])))
    if head[8:9] == b"{":
        return _of_safetensors(file)
    if head[:4] == b"PK\x03\x04":
        return _of_archive(file, zipfile.ZipFile(file).infolist())
    return _of_old_file(file)


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


@dataclass
class _Storage:
    """A section of a file that holds values of tensors; positions in bytes."""

    file: _File
    start: int
    length: int
    crc: int = 0
    """CRC-32 checksum of the section; 0 if none was written."""

    @cached_property
    def is_sound(self) -> bool:
        """Whether the section matches its checksum."""
        found = 0
        for start in range(0, self.length if self.crc else 0, self.file.most):
            found = zlib.crc32(self.bytes(start, min(self.file.most, self.length - start)), found)
        return found == self.crc

    def bytes(self, start: int, length: int) -> bytearray:
        """Read bytes of the section; `ValueError` outside it."""
        if not 0 <= start <= start + length <= self.length:
            raise ValueError(f"a tensor lies outside its storage of {self.length} bytes")
        return self.file.part(self.start + start, length)

    def view(self, dtype: torch.dtype, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        """Read a contiguous tensor with its own memory.

        Args:
            dtype: type of the values.
            offset: first element, in elements from the start of the section.
            shape: shape of the tensor.
            stride: stored strides, in elements.

        Raises:
            ValueError: the section is damaged or too short, or the tensor is spread over too many bytes.
        """
        if not prod(shape):
            return torch.empty(shape, dtype=dtype)
        if not self.is_sound:
            raise ValueError("its check sum is wrong; the file is damaged")
        count = 1 + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))
        if count * dtype.itemsize > max(_MOST_SPREAD * prod(shape) * dtype.itemsize, self.file.most):
            raise ValueError(f"a tensor of {shape} is spread over {count * dtype.itemsize} bytes; save a copy of it")
        values = torch.frombuffer(self.bytes(offset * dtype.itemsize, count * dtype.itemsize), dtype=dtype)
        return values.as_strided(shape, stride).clone(memory_format=torch.contiguous_format)


_MOST_SPREAD = 64
"""Largest ratio of bytes spanned to bytes used, for a tensor that was sliced from a larger one."""

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


def _of_safetensors(file: _File) -> dict[str, StoredTensor]:
    (length,) = struct.unpack("<Q", file.part(0, 8))
    if length > file.most:
        raise ValueError(f"its index is longer than {file.most} bytes")
    index = json.loads(file.part(8, length), object_pairs_hook=_without_doubles)
    return {key: _in_safetensors(file, 8 + length, one) for key, one in index.items() if key != "__metadata__"}


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a name stands twice in its index")
    return found


def _in_safetensors(file: _File, start: int, about: Any) -> StoredTensor:
    if not isinstance(about, dict) or about.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError("its index is none of safetensors")
    name, shape, (begin, end) = str(about["dtype"]), about["shape"], about["data_offsets"]
    if name not in _SAFETENSORS:
        return StoredTensor(None, (), _no_values, name)
    kind = _SAFETENSORS[name]
    if not all(map(_is_count, (begin, end, *shape))) or end - begin != prod(shape) * kind.itemsize:
        raise ValueError(f"a tensor of {tuple(shape)} {name} cannot lie in bytes {begin} to {end}")
    storage, strides = _Storage(file, start + begin, end - begin), torch.empty(shape, device="meta").stride()
    return StoredTensor(kind, tuple(shape), partial(storage.view, kind, 0, tuple(shape), strides))


def _of_archive(file: _File, entries: list[zipfile.ZipInfo]) -> Any:
    """Read a `torch.save` zip archive, whose entries must be stored uncompressed."""
    names = {entry.filename for entry in entries}
    folder = entries[0].filename.split("/")[0] if entries else ""
    if f"{folder}/data.pkl" not in names or f"{folder}/constants.pkl" in names:
        raise ValueError(f"it is an archive, but of a program or of something else; {_EXPECTED}")
    if len(names) < len(entries):
        raise ValueError("two entries of the archive have the same name")
    parts = {entry.filename: _of_entry(file, entry) for entry in entries}
    order = parts.get(f"{folder}/byteorder")
    if order is not None:
        _check_order(_whole(order).decode())
    storages = {name.removeprefix(f"{folder}/data/"): part for name, part in parts.items()}
    return PickleReader(_is_known, partial(_made, storages)).read(BytesIO(_whole(parts[f"{folder}/data.pkl"])))


def _whole(part: _Storage) -> bytearray:
    if part.length > part.file.most:
        raise ValueError(f"its index is longer than {part.file.most} bytes")
    if not part.is_sound:
        raise ValueError("its check sum is wrong; the file is damaged")
    return part.bytes(0, part.length)


_ENCRYPTED = 1


def _of_entry(file: _File, entry: zipfile.ZipInfo) -> _Storage:
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise ValueError(f"its entry {entry.filename} is compressed, which torch.save does not do")
    if entry.flag_bits & _ENCRYPTED:
        raise ValueError(f"its entry {entry.filename} is encrypted")
    signature, lengths = struct.unpack("<4s22xI", file.part(entry.header_offset, 30))
    if signature != b"PK\x03\x04":
        raise ValueError(f"its entry {entry.filename} does not lie where the archive says")
    return _Storage(file, entry.header_offset + 30 + (lengths & 0xFFFF) + (lengths >> 16), entry.file_size, entry.CRC)


def _check_order(order: str) -> None:
    if order != sys.byteorder:
        raise ValueError(f"its bytes are in {order} order; save it again on a machine of {sys.byteorder} order")


_MAGIC = 0x1950A86A20F9469CFC6C


def _of_old_file(file: _File) -> Any:
    """Read a file of `torch.save` before PyTorch 1.6: five pickles, then the storages, each preceded by its length."""
    storages: dict[str, _Storage] = {}
    reader = PickleReader(_is_known, partial(_made, storages))
    index = BytesIO(file.part(0, min(file.most, file.state[0])))
    if index.getvalue()[:1] != b"\x80":
        raise ValueError(f"it is neither; {_EXPECTED}")
    if reader.read(index) != _MAGIC:
        raise ValueError(f"it is a pickle, but not of torch.save; {_EXPECTED}")
    _version, system, found, keys = (reader.read(index) for _ in range(4))
    _check_order("little" if system.get("little_endian", True) else "big")
    sizes = {pid[2]: _STORAGES[pid[1].name].itemsize for pid in reader.outside}
    start = index.tell()
    for key in keys:
        (count,) = struct.unpack("<q", file.part(start, 8))
        storages[key] = _Storage(file, start + 8, count * sizes[key])
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
"""Names that checkpoints contain next to the weights; none of these objects is created."""

_VALUES = frozenset(
    f"torch.{name}" for name, value in vars(torch).items() if type(value) in (torch.dtype, torch.qscheme)
)


def _is_known(name: str) -> bool:
    base = name.removeprefix("torch._utils.")
    rebuilt = base != name and (base in _TENSORS or base in _PARAMETERS or base in _KINDS)
    return rebuilt or name in _STORAGES or name in _VALUES or name in _INERT or name in (*_PLAIN, _OF_TYPE)


def _made(storages: Mapping[str, _Storage], name: str, args: tuple[Any, ...]) -> Any:
    """Replace a call in a pickle: by a `StoredTensor` if it would create a tensor, by None otherwise."""
    base = name.removeprefix("torch._utils.")
    if base in _PARAMETERS:
        return args[0]
    if base in _KINDS:
        return StoredTensor(None, (), _no_values, _KINDS[base])
    if name == _OF_TYPE:  # a tensor with its own attributes, or of a subclass
        function, kind, arguments, *_ = args
        if kind.name in _PLAIN:
            return _made(storages, function.name, arguments)
        return StoredTensor(None, (), _no_values, f"of the subclass {kind.name}")
    return _tensor(storages, *args) if base in _TENSORS else None


def _tensor(
    storages: Mapping[str, _Storage], source: Any, offset: Any, shape: Any, stride: Any, *more: Any
) -> StoredTensor:
    """Return the tensor that `_rebuild_tensor…` would make of a storage.

    `more` ends with a data type and, for views, a dictionary that describes the view.
    """
    dtypes = [getattr(torch, one.name.removeprefix("torch.")) for one in more if isinstance(one, Named)]
    views = more[-1] if len(more) > 2 and isinstance(more[-1], dict) else {}
    sizes = (offset, *shape, *stride)
    if not isinstance(source, Outside) or not all(map(_is_count, sizes)) or len(shape) != len(stride):
        raise ValueError("a tensor in it has no sizes or no values")
    _, kind, key, *_ = source.key
    dtype = dtypes[0] if dtypes else _STORAGES[kind.name]
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"a tensor in it is of type {dtype}")
    if views:
        return StoredTensor(None, (), _no_values, f"a view ({', '.join(map(str, views))})")
    place = (dtype, offset, tuple(shape), tuple(stride))
    return StoredTensor(dtype, tuple(shape), partial(_values, storages, key, *place))


def _values(storages: Mapping[str, _Storage], key: Any, *place: Any) -> Tensor:
    if key not in storages:
        raise ValueError(f"it has no values {key}, which a tensor names")
    return storages[key].view(*place)


def _is_count(found: Any) -> bool:
    return type(found) is int and found >= 0


def _no_values() -> Tensor:
    raise ValueError("a tensor in it has no plain values")
