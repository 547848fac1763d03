"""The one place where a configuration becomes objects.

A configuration is data, not a program. Whatever it names under ``_target_`` is created here and nowhere else, and only
if it is *defined in* structkd or in a plug-in module that the user registered. The test is on the object found, not on
the string: ``structkd.commands.main.os.system`` starts with the right letters and is still ``os.system``.

A plug-in is registered by any of

- ``register_plugin("my_module")`` in Python,
- the environment variable ``STRUCTKD_PLUGINS=my_module,another``,
- an entry point of a package, group ``structkd.plugins``, whose value is the module's name.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
import types
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, cast

from structkd.data import configured_at
from structkd.rooms import NAMEABLE
from structkd.spelling import did_you_mean

__all__ = ["InstantiationError", "instantiate", "plugins", "register_plugin", "resolve", "with_defaults"]

_PLAIN = (type(None), bool, int, float, str)

_registered: list[str] = []


class InstantiationError(ValueError):
    """A configuration names something that must not or cannot be created."""


def register_plugin(module: str) -> None:
    """Admit the objects defined in ``module`` and its submodules in configurations of this process."""
    if not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"Not the name of a module: {module!r}.")
    if module not in _registered:
        _registered.append(module)


def plugins() -> tuple[str, ...]:
    """Return the names of all registered plug-in modules."""
    listed = [name.strip() for name in os.environ.get("STRUCTKD_PLUGINS", "").split(",") if name.strip()]
    return tuple(dict.fromkeys([*_registered, *listed, *_installed_plugins()]))


@functools.cache
def _installed_plugins() -> tuple[str, ...]:
    """Return the plug-in modules of installed packages. Their metadata are read once: 10 ms, and 70 calls in a run."""
    return tuple(point.value.partition(":")[0] for point in entry_points(group="structkd.plugins"))


def instantiate(config: Any, where: str = "") -> Any:
    """Create the objects that a configuration describes, inner ones first.

    Mappings with ``_target_`` become the object's instance (a function is called); ``_args_`` are positional
    arguments; ``_partial_: true`` gives a function that still waits for the remaining arguments. All other values
    are kept as they are, lists and mappings included.

    Args:
        config: plain Python data (of an OmegaConf configuration: ``OmegaConf.to_container(config, resolve=True)``).
        where: name of the configuration node, for messages.

    Raises:
        InstantiationError: if the target is not admitted, does not exist, or does not take the arguments.
    """
    if isinstance(config, Mapping):
        values = {
            key: instantiate(value, f"{where}.{key}" if where else str(key))
            for key, value in config.items()
            if key not in ("_target_", "_partial_")
        }
        if "_target_" not in config:
            if "_partial_" in config or "_args_" in config:
                raise InstantiationError(f"{where or 'The configuration'} has _partial_ or _args_ but no _target_.")
            return values
        return _create(config["_target_"], values, config.get("_partial_", False), where or "The configuration")
    if isinstance(config, list | tuple):
        return [instantiate(value, f"{where}[{number}]") for number, value in enumerate(config)]
    return config


def with_defaults(config: Any) -> Any:
    """Return a configuration with every argument that it leaves at the default of the object it names.

    Defaults other than None, numbers, strings and booleans are left out.

    Args:
        config: plain Python data, as :func:`instantiate` takes it.
    """
    if isinstance(config, list | tuple):
        return [with_defaults(value) for value in config]
    if not isinstance(config, Mapping):
        return config
    given = {key: with_defaults(value) for key, value in config.items()}
    if "_target_" not in given:
        return given
    parameters = inspect.signature(resolve(given["_target_"])).parameters.values()
    defaults = {each.name: each.default for each in parameters if isinstance(each.default, _PLAIN)}
    return defaults | given


def resolve(target: str) -> Callable[..., Any]:
    """Find the class or function a dotted name stands for, and admit it or refuse.

    Modules are imported only inside admitted packages, and the object that is found must itself be defined there.

    Raises:
        InstantiationError: if it is not found or not admitted.
    """
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        raise InstantiationError(
            f"The _target_ must be a dotted name such as structkd.structural_kd_loss, got {target!r}."
        )
    package = next((name for name in ("structkd", *plugins()) if _inside(target, name)), None)
    if package is None:
        raise _refused(target, "it is not part of structkd or of a registered plug-in")
    found: Any = _imported(package, target)
    parts = target.split(".")
    position = package.count(".") + 1
    while position < len(parts):
        name = parts[position]
        if inspect.ismodule(found) and not hasattr(found, name):
            found = _imported(f"{found.__name__}.{name}", target)
        elif hasattr(found, name):
            found = getattr(found, name)
        else:
            raise _missing(target, found, name)
        if inspect.ismodule(found) and not _admitted_package(found.__name__):
            raise _refused(target, f"it leads through the module {found.__name__}")
        position += 1
    if not _admitted(found):
        if inspect.ismodule(found):
            raise _refused(target, "it is a module")
        home = getattr(found, "__module__", None) or type(found).__module__
        raise _refused(target, f"the {type(found).__name__} it names is defined in {home}")
    return cast("Callable[..., Any]", found)


def _create(target: Any, values: dict[str, Any], partial: Any, where: str) -> Any:
    try:
        callable_ = resolve(target)
    except InstantiationError as error:
        raise InstantiationError(f"{where}: {error}") from error
    if not isinstance(partial, bool):
        raise InstantiationError(f"{where}: The value of _partial_ must be true or false, got {partial!r}.")
    arguments = values.pop("_args_", [])
    if not isinstance(arguments, list):
        raise InstantiationError(f"{where}: The value of _args_ must be a list, got {arguments!r}.")
    unexpected = [name for name in values if not isinstance(name, str) or name.startswith("_")]
    if unexpected:
        raise InstantiationError(f"{where}: {', '.join(map(repr, unexpected))} cannot be given to {target}.")
    signature = inspect.signature(callable_)
    try:
        (signature.bind_partial if partial else signature.bind)(*arguments, **values)
    except TypeError as error:
        raise InstantiationError(f"{where}: {target} {_explain(signature, values, error)}") from error
    if partial:
        return functools.partial(callable_, *arguments, **values)
    with configured_at(where):
        return callable_(*arguments, **values)


def _explain(signature: inspect.Signature, values: Mapping[str, Any], error: TypeError) -> str:
    names = [name for name in signature.parameters if name != "self"]
    for name in values:
        if name not in names:
            return f"has no argument {name!r}.{did_you_mean(name, names)} It takes: {', '.join(names)}."
    return f"cannot be called with these arguments ({error}). It takes: {', '.join(names)}."


def _inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _admitted_package(name: str) -> bool:
    """Whether objects defined in this module may be created."""
    # An installed plug-in may live inside structkd's own namespace, hence the order of the two tests.
    if any(_inside(name, plugin) for plugin in plugins()):
        return True
    return name == "structkd" or any(_inside(name, f"structkd.{room}") for room in NAMEABLE)


def _admitted(found: Any) -> bool:
    """Whether an object is a class, function or class method that is defined in an admitted module."""
    if isinstance(found, types.MethodType):
        return inspect.isclass(found.__self__) and _admitted(found.__self__) and _admitted(found.__func__)
    if isinstance(found, types.FunctionType):
        # __module__ can be assigned (decorators copy it); the module a function runs in cannot. A decorator and what
        # it wraps must both be admitted.
        homes = [sys.modules.get(layer.__globals__.get("__name__", "")) for layer in _layers(found)]
        return all(
            home is not None and layer.__globals__ is home.__dict__ and _admitted_package(home.__name__)
            for layer, home in zip(_layers(found), homes, strict=True)
        )
    module = sys.modules.get(getattr(found, "__module__", None) or "")
    if not isinstance(found, type) or module is None or not _admitted_package(module.__name__):
        return False
    # A class made elsewhere may claim any module, but it is not to be found there under its name.
    inner: Any = module
    for part in found.__qualname__.split("."):
        inner = getattr(inner, part, None)
    return inner is found


def _layers(function: types.FunctionType) -> list[types.FunctionType]:
    """Yield a function and the functions that it wraps."""
    layers = [function]
    while isinstance(inner := getattr(layers[-1], "__wrapped__", None), types.FunctionType) and inner not in layers:
        layers.append(inner)
    return layers


def _imported(name: str, target: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and not _inside(name, error.name):
            raise InstantiationError(f"{target} cannot be imported: its module needs {error.name!r}.") from error
        parent, _, last = name.rpartition(".")
        raise _missing(target, sys.modules.get(parent), last) from error


def _missing(target: str, parent: Any, name: str) -> InstantiationError:
    hint = did_you_mean(name, dir(parent)) if parent is not None else ""
    hint = hint or " Is the plug-in installed or on PYTHONPATH?"
    return InstantiationError(f"{target} does not exist: nothing is called {name!r} there.{hint}")


def _refused(target: str, reason: str) -> InstantiationError:
    return InstantiationError(
        f"{target} is refused: {reason}. A configuration may only name classes and functions defined in structkd "
        "or in a plug-in module; register yours with STRUCTKD_PLUGINS=<module>."
    )
