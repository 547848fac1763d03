"""The one place where a configuration becomes objects.

A configuration is data, not a program. Whatever it names under ``_target_`` is created here and nowhere else, and only
if it is a recipe, loss, schedule or loader of structkd (:mod:`structkd.configurable`) or if a plug-in module that the
user named *defines* it (:mod:`structkd.plugins`). The test is on the object found, not on the string:
``structkd.commands.main.os.system`` starts with the right letters and is still ``os.system``.

The whole configuration is checked, names and arguments, before the first object is created.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, cast

from structkd.configurable import is_configurable
from structkd.data import configured_at
from structkd.plugins import plugins, register_plugin
from structkd.rooms import NAMEABLE
from structkd.spelling import did_you_mean

__all__ = ["InstantiationError", "check", "instantiate", "plugins", "register_plugin", "resolve", "with_defaults"]

_PLAIN = (type(None), bool, int, float, str)
#: Mappings and lists inside one another; the deepest configuration that makes sense has about ten.
_DEEPEST = 50


class InstantiationError(ValueError):
    """A configuration names something that must not or cannot be created."""


def instantiate(config: Any, where: str = "") -> Any:
    """Create the objects that a configuration describes, inner ones first.

    Mappings with ``_target_`` become the object's instance (a function is called); ``_args_`` are positional
    arguments; ``_partial_: true`` gives a function that still waits for the remaining arguments. All other values
    are kept as they are, lists and mappings included. Nothing is created before all of it is known to be admitted.

    Args:
        config: plain Python data (of an OmegaConf configuration: ``OmegaConf.to_container(config, resolve=True)``).
        where: name of the configuration node, for messages.

    Raises:
        InstantiationError: if a target is not admitted, does not exist, or does not take the arguments.

    >>> instantiate({"_target_": "structkd.LinearAnnealing", "start": 1.0, "end": 0.5})
    LinearAnnealing(start=1.0, end=0.5)
    """
    check(config, where)
    return _create(config, where)


def check(config: Any, where: str = "") -> None:
    """Refuse what :func:`instantiate` would refuse, and create nothing.

    Raises:
        InstantiationError: as :func:`instantiate`.
    """
    _check(config, where, _DEEPEST)


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

    Modules are imported only inside admitted packages. The object that is found must be one that structkd offers, or
    be defined in a plug-in module under a public name.

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
    parts = target.split(".")
    position = package.count(".") + 1
    if private := next((part for part in parts[position:] if part.startswith("_")), None):
        raise _refused(target, f"{private!r} is a private name")
    found: Any = _imported(package, target)
    while position < len(parts):
        name = parts[position]
        if inspect.ismodule(found) and not hasattr(found, name):
            inner = f"{found.__name__}.{name}"
            if not _admitted_package(inner):
                if _exists(inner):
                    raise _refused(target, f"{inner} offers nothing to configurations")
                raise _missing(target, found, name)
            found = _imported(inner, target)
        elif hasattr(found, name):
            found = getattr(found, name)
        else:
            raise _missing(target, found, name)
        if inspect.ismodule(found) and not _admitted_package(found.__name__):
            raise _refused(target, f"it leads through the module {found.__name__}")
        position += 1
    if not (is_configurable(found) or _defined_in_plugin(found)):
        if inspect.ismodule(found):
            raise _refused(target, "it is a module")
        home = str(getattr(found, "__module__", None) or type(found).__module__)
        if _inside(home, "structkd"):
            raise _refused(target, "it is not a recipe, loss, schedule or loader that structkd offers")
        raise _refused(target, f"the {type(found).__name__} it names is defined in {home}")
    return cast("Callable[..., Any]", found)


def _check(config: Any, where: str, deepest: int) -> None:
    """Refuse a configuration that names or calls something wrong, before anything of it is created."""
    if not isinstance(config, Mapping | list | tuple):
        return
    if deepest == 0:
        raise InstantiationError(
            f"{where[:100]}...: The configuration has more than {_DEEPEST} mappings and lists inside one another."
        )
    named = where or "The configuration"
    if isinstance(config, Mapping):
        if "_target_" in config:
            _check_call(config, named)
        elif "_partial_" in config or "_args_" in config:
            raise InstantiationError(f"{named} has _partial_ or _args_ but no _target_.")
    for name, value in config.items() if isinstance(config, Mapping) else enumerate(config):
        if name not in ("_target_", "_partial_"):
            _check(value, _below(where, name), deepest - 1)


def _check_call(config: Mapping[Any, Any], where: str) -> None:
    """Refuse a target that is not admitted, or arguments that it does not take."""
    target, partial, arguments = config["_target_"], config.get("_partial_", False), config.get("_args_", [])
    try:
        callable_ = resolve(target)
    except InstantiationError as error:
        raise InstantiationError(f"{where}: {error}") from error
    if not isinstance(partial, bool):
        raise InstantiationError(f"{where}: The value of _partial_ must be true or false, got {partial!r}.")
    if not isinstance(arguments, list):
        raise InstantiationError(f"{where}: The value of _args_ must be a list, got {arguments!r}.")
    values = _keywords(config)
    unexpected = [name for name in values if not isinstance(name, str) or name.startswith("_")]
    if unexpected:
        raise InstantiationError(f"{where}: {', '.join(map(repr, unexpected))} cannot be given to {target}.")
    signature = inspect.signature(callable_)
    try:
        (signature.bind_partial if partial else signature.bind)(*arguments, **values)
    except TypeError as error:
        raise InstantiationError(f"{where}: {target} {_explain(signature, values, error)}") from error


def _create(config: Any, where: str) -> Any:
    """Create the objects of a configuration that was checked."""
    if isinstance(config, list | tuple):
        return [_create(value, _below(where, number)) for number, value in enumerate(config)]
    if not isinstance(config, Mapping):
        return config
    if "_target_" not in config:
        return {name: _create(value, _below(where, name)) for name, value in config.items()}
    callable_ = resolve(config["_target_"])
    arguments = _create(config.get("_args_", []), _below(where, "_args_"))
    values = {name: _create(value, _below(where, name)) for name, value in _keywords(config).items()}
    if config.get("_partial_", False):
        return functools.partial(callable_, *arguments, **values)
    with configured_at(where or "The configuration"):
        return callable_(*arguments, **values)


def _keywords(config: Mapping[Any, Any]) -> dict[Any, Any]:
    return {name: value for name, value in config.items() if name not in ("_target_", "_partial_", "_args_")}


def _below(where: str, name: Any) -> str:
    if isinstance(name, int):
        return f"{where}[{name}]"
    return f"{where}.{name}" if where else str(name)


def _explain(signature: inspect.Signature, values: Mapping[str, Any], error: TypeError) -> str:
    names = [name for name in signature.parameters if name != "self"]
    for name in values:
        if name not in names:
            return f"has no argument {name!r}.{did_you_mean(name, names)} It takes: {', '.join(names)}."
    return f"cannot be called with these arguments ({error}). It takes: {', '.join(names)}."


def _inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _admitted_package(name: str) -> bool:
    """Whether a configuration may name objects by way of this module."""
    return _of_plugin(name) or name == "structkd" or any(_inside(name, f"structkd.{room}") for room in NAMEABLE)


def _of_plugin(name: str) -> bool:
    return any(_inside(name, plugin) for plugin in plugins())


def _defined_in_plugin(found: Any) -> bool:
    """Whether an object is a class, function or class method that is defined in a plug-in module."""
    if isinstance(found, types.MethodType):
        return (
            inspect.isclass(found.__self__)
            and _defined_in_plugin(found.__self__)
            and _defined_in_plugin(found.__func__)
        )
    if isinstance(found, types.FunctionType):
        # __module__ can be assigned (decorators copy it); the module a function runs in cannot. A decorator and what
        # it wraps must both be admitted.
        homes = [sys.modules.get(layer.__globals__.get("__name__", "")) for layer in _layers(found)]
        return all(
            home is not None and layer.__globals__ is home.__dict__ and _of_plugin(home.__name__)
            for layer, home in zip(_layers(found), homes, strict=True)
        )
    module = sys.modules.get(getattr(found, "__module__", None) or "")
    if not isinstance(found, type) or module is None or not _of_plugin(module.__name__):
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


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _missing(target: str, parent: Any, name: str) -> InstantiationError:
    hint = did_you_mean(name, dir(parent)) if parent is not None else ""
    hint = hint or " Is the plug-in installed or on PYTHONPATH?"
    return InstantiationError(f"{target} does not exist: nothing is called {name!r} there.{hint}")


def _refused(target: str, reason: str) -> InstantiationError:
    return InstantiationError(
        f"{target[:200]} is refused: {reason}. A configuration may only name the recipes, losses, schedules and "
        "loaders that structkd offers, and what a plug-in module defines; to trust a module of yours, add "
        "+trust=<module> to the command or set STRUCTKD_PLUGINS=<module>."
    )
