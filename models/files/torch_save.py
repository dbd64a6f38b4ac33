"""Read the index of a file of `torch.save`, as a zip archive or in the format before PyTorch 1.6.

Both contain a pickle, which is read as data (`pickles`), so that no file can run code.
"""

import struct
import sys
import zipfile
from collections.abc import Mapping
from functools import partial
from io import BytesIO
from typing import Any

import torch
from torch import Tensor

from .pickles import Named, Outside, PickleReader
from .sections import EXPECTED, IndexedFile, Section, StoredTensor, is_count, no_values


def read_archive(file: IndexedFile, entries: list[zipfile.ZipInfo]) -> Any:
    """Read a `torch.save` zip archive, whose entries must be stored uncompressed."""
    names = {entry.filename for entry in entries}
    folder = entries[0].filename.split("/")[0] if entries else ""
    if f"{folder}/data.pkl" not in names or f"{folder}/constants.pkl" in names:
        raise ValueError(f"it is an archive, but of a program or of something else; {EXPECTED}")
    if len(names) < len(entries):
        raise ValueError("two entries of the archive have the same name")
    parts = {entry.filename: _of_entry(file, entry) for entry in entries}
    order = parts.get(f"{folder}/byteorder")
    if order is not None:
        _check_order(_whole(order).decode())
    storages = {name.removeprefix(f"{folder}/data/"): part for name, part in parts.items()}
    return PickleReader(_is_known, partial(_made, storages)).read(BytesIO(_whole(parts[f"{folder}/data.pkl"])))


def _whole(part: Section) -> bytearray:
    if part.length > part.file.most:
        raise ValueError(f"its index is longer than {part.file.most} bytes")
    if not part.is_sound:
        raise ValueError("its check sum is wrong; the file is damaged")
    return part.bytes(0, part.length)


_ENCRYPTED = 1


def _of_entry(file: IndexedFile, entry: zipfile.ZipInfo) -> Section:
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise ValueError(f"its entry {entry.filename} is compressed, which torch.save does not do")
    if entry.flag_bits & _ENCRYPTED:
        raise ValueError(f"its entry {entry.filename} is encrypted")
    signature, lengths = struct.unpack("<4s22xI", file.part(entry.header_offset, 30))
    if signature != b"PK\x03\x04":
        raise ValueError(f"its entry {entry.filename} does not lie where the archive says")
    return Section(file, entry.header_offset + 30 + (lengths & 0xFFFF) + (lengths >> 16), entry.file_size, entry.CRC)


def _check_order(order: str) -> None:
    if order != sys.byteorder:
        raise ValueError(f"its bytes are in {order} order; save it again on a machine of {sys.byteorder} order")


_MAGIC = 0x1950A86A20F9469CFC6C


def read_old_file(file: IndexedFile) -> Any:
    """Read a file of `torch.save` before PyTorch 1.6: five pickles, then the storages, each preceded by its length."""
    storages: dict[str, Section] = {}
    reader = PickleReader(_is_known, partial(_made, storages))
    index = BytesIO(file.part(0, min(file.most, file.state[0])))
    if index.getvalue()[:1] != b"\x80":
        raise ValueError(f"it is neither; {EXPECTED}")
    if reader.read(index) != _MAGIC:
        raise ValueError(f"it is a pickle, but not of torch.save; {EXPECTED}")
    _version, system, found, keys = (reader.read(index) for _ in range(4))
    _check_order("little" if system.get("little_endian", True) else "big")
    sizes = {pid[2]: _STORAGES[pid[1].name].itemsize for pid in reader.outside}
    start = index.tell()
    for key in keys:
        (count,) = struct.unpack("<q", file.part(start, 8))
        storages[key] = Section(file, start + 8, count * sizes[key])
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


def _made(storages: Mapping[str, Section], name: str, args: tuple[Any, ...]) -> Any:
    """Replace a call in a pickle: by a `StoredTensor` if it would create a tensor, by None otherwise."""
    base = name.removeprefix("torch._utils.")
    if base in _PARAMETERS:
        return args[0]
    if base in _KINDS:
        return StoredTensor(None, (), no_values, _KINDS[base])
    if name == _OF_TYPE:  # a tensor with its own attributes, or of a subclass
        function, kind, arguments, *_ = args
        if kind.name in _PLAIN:
            return _made(storages, function.name, arguments)
        return StoredTensor(None, (), no_values, f"of the subclass {kind.name}")
    return _tensor(storages, *args) if base in _TENSORS else None


def _tensor(
    storages: Mapping[str, Section], source: Any, offset: Any, shape: Any, stride: Any, *more: Any
) -> StoredTensor:
    """Return the tensor that `_rebuild_tensor…` would make of a storage.

    `more` ends with a data type and, for views, a dictionary that describes the view.
    """
    dtypes = [getattr(torch, one.name.removeprefix("torch.")) for one in more if isinstance(one, Named)]
    views = more[-1] if len(more) > 2 and isinstance(more[-1], dict) else {}
    sizes = (offset, *shape, *stride)
    if not isinstance(source, Outside) or not all(map(is_count, sizes)) or len(shape) != len(stride):
        raise ValueError("a tensor in it has no sizes or no values")
    _, kind, key, *_ = source.key
    dtype = dtypes[0] if dtypes else _STORAGES[kind.name]
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"a tensor in it is of type {dtype}")
    if views:
        return StoredTensor(None, (), no_values, f"a view ({', '.join(map(str, views))})")
    place = (dtype, offset, tuple(shape), tuple(stride))
    return StoredTensor(dtype, tuple(shape), partial(_values, storages, key, *place))


def _values(storages: Mapping[str, Section], key: Any, *place: Any) -> Tensor:
    if key not in storages:
        raise ValueError(f"it has no values {key}, which a tensor names")
    return storages[key].view(*place)
