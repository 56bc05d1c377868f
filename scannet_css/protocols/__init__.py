"""Class-incremental settings: class order, steps, background, and the labels a step shows."""

from scannet_css.protocols.protocol import Protocol, load_protocol, protocol_names

__all__ = ["Protocol", "load_protocol", "protocol_names"]
