"""What can go wrong in the method.

MiloraError
├── ConfigError         a configuration that cannot describe a mixture
├── UnsupportedLayer    a target whose module type cannot be adapted
├── RoutingError        a forward pass whose rows cannot be told apart by video
├── StateMismatch       an adapter that does not fit the model it is loaded into
└── BankFull            every slot of the bank is pinned by a request in flight
"""

from __future__ import annotations


class MiloraError(Exception):
    """Base of everything this package raises."""


class ConfigError(MiloraError, ValueError):
    """The configuration cannot describe a mixture of experts."""


class UnsupportedLayer(MiloraError, TypeError):
    """A target module is of a type, or has a geometry, that cannot be adapted."""


class RoutingError(MiloraError, RuntimeError):
    """The rows of a layer's input cannot be assigned to videos."""


class StateMismatch(MiloraError, ValueError):
    """An adapter's tensors do not fit the injected model."""


class BankFull(MiloraError, RuntimeError):
    """No slot can be freed: all of them are pinned."""
