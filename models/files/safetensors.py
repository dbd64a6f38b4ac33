"""Read the index of a safetensors file."""

import json
import struct
from functools import partial
from math import prod
from typing import Any

import torch

from .sections import IndexedFile, Section, StoredTensor, is_count, no_values

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


def read_safetensors(file: IndexedFile) -> dict[str, StoredTensor]:
    (length,) = struct.unpack("<Q", file.part(0, 8))
    if length > file.most:
        raise ValueError(f"its index is longer than {file.most} bytes")
    index = json.loads(file.part(8, length), object_pairs_hook=_without_doubles)
    return {key: _in_safetensors(file, 8 + length, one) for key, one in index.items() if key != "__metadata__"}


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a name stands twice in its index")
    return found


def _in_safetensors(file: IndexedFile, start: int, about: Any) -> StoredTensor:
    if not isinstance(about, dict) or about.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError("its index is none of safetensors")
    name, shape, (begin, end) = str(about["dtype"]), about["shape"], about["data_offsets"]
    if name not in _SAFETENSORS:
        return StoredTensor(None, (), no_values, name)
    kind = _SAFETENSORS[name]
    if not all(map(is_count, (begin, end, *shape))) or end - begin != prod(shape) * kind.itemsize:
        raise ValueError(f"a tensor of {tuple(shape)} {name} cannot lie in bytes {begin} to {end}")
    storage, strides = Section(file, start + begin, end - begin), torch.empty(shape, device="meta").stride()
    return StoredTensor(kind, tuple(shape), partial(storage.view, kind, 0, tuple(shape), strides))
