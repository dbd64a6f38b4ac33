"""Protocols: the settings of published figures and tables, one file each."""

from erf.protocols.protocol import Protocol, list_protocols, load_protocol

__all__ = ["Protocol", "list_protocols", "load_protocol"]
