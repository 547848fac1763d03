"""The classes and functions of structkd that a configuration may name: recipes, losses, schedules and loaders.

Each is marked where it is defined. What lies beside it in its module, such as a function that moves files, is not
offered, and neither are its methods. Objects are compared by identity, so another name for one opens nothing.
"""

from __future__ import annotations

from typing import Any, TypeVar

__all__ = ["configurable", "is_configurable"]

_Named = TypeVar("_Named")
#: By identity. The objects stay alive here, so no other object ever gets the number of one of them.
_offered: dict[int, Any] = {}


def configurable(thing: _Named) -> _Named:
    """Offer a class or a function of structkd to configurations; the decorator of its definition.

    It must only read what its arguments name: a configuration of a stranger may call it with any of them.
    """
    _offered[id(thing)] = thing
    return thing


def is_configurable(thing: object) -> bool:
    """Return whether exactly this object is offered to configurations.

    >>> from structkd.losses import LinearAnnealing, structural_kd_loss
    >>> is_configurable(LinearAnnealing), is_configurable(structural_kd_loss), is_configurable(print)
    (True, True, False)
    """
    return id(thing) in _offered
