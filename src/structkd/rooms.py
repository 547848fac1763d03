"""The rooms of the package, and which of them may import which: imports go one way."""

from __future__ import annotations

__all__ = ["DECIDING", "MAY_IMPORT", "NAMEABLE"]

#: Every room with the rooms that it may import, lower ones first. Modules beside the rooms are open to all.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "distributions": (),
    "projections": ("distributions",),
    "losses": ("distributions", "projections"),
    "testing": (),
    "integrations": ("distributions",),
    "data": (),
    "evaluation": ("data",),
    "models": ("distributions", "projections", "losses", "integrations", "data"),
    "training": ("distributions", "projections", "losses", "integrations", "data", "evaluation", "models"),
    "export": ("distributions", "projections", "losses", "integrations", "data", "evaluation", "models"),
    "teachers": ("distributions", "projections", "losses", "integrations", "data", "evaluation", "models", "training"),
    "inference": ("data", "evaluation", "models"),
    "runs": (
        *("distributions", "projections", "losses", "integrations", "data", "evaluation", "models", "training"),
        "teachers",
    ),
    "reporting": ("evaluation",),
    "commands": ("export", "inference", "runs", "reporting"),
}
#: Rooms that carry experiments and models out. A configuration cannot name their objects: one that could call
#: ``register_plugin`` would admit itself.
_CARRYING_OUT = ("testing", "export", "inference", "runs", "reporting", "commands")
#: Rooms whose objects are parts of an experiment, so that a configuration may name them.
NAMEABLE = tuple(room for room in MAY_IMPORT if room not in _CARRYING_OUT)
#: Rooms whose code decides the result of a training. Data have a fingerprint of their own.
DECIDING = tuple(room for room in NAMEABLE if room != "data")
