"""Suggestions for overrides that the configuration does not have.

Every suggestion can be typed as it stands: quoted for a shell, with ``+`` and ``@`` as Hydra wants them.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from structkd.spelling import did_you_mean

__all__ = ["about_choice", "about_grammar", "about_key", "about_value"]

#: Groups that can be chosen on the command line although they are not keys of the schema.
_GROUPS = ("scenario", "debug", "paper", "sweep")
#: Groups whose choices fill a node of the same name.
_NODES = ("model", "encoder", "trainer")
#: Names of settings in other tools, and ours.
_ALIASES = {
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "max_epochs": "num_train_epochs",
    "steps": "max_steps",
    "batch_size": "per_device_train_batch_size",
    "num_workers": "dataloader_num_workers",
    "output_dir": "work_dir",
    "T": "temperature",
    "tau": "temperature",
    "early_stopping": "patience",
    "alpha": "interpolation",
}
#: Fields of transformers.TrainingArguments that are often wanted, and that no file of the group trainer may have.
_OF_TRAINERS = ("num_train_epochs", "dataloader_num_workers", "fp16", "bf16", "warmup_ratio", "optim", "logging_steps")
#: The package that a launcher or sweeper of Hydra needs.
_EXTRAS = {
    "joblib": "structkd[sweep]",
    "submitit_local": "structkd[sweep]",
    "submitit_slurm": "structkd[sweep]",
    "optuna": "structkd[sweep]",
    "ray": "hydra-ray-launcher",
}


def about_choice(file: str, options: Sequence[str]) -> str:
    """Explain a choice that its group does not have.

    Args:
        file: the group and the choice, ``kd/structual``.
        options: choices of the group.
    """
    group, _, choice = file.rpartition("/")
    if group.startswith("hydra/") and choice in _EXTRAS:
        kind = group.rpartition("/")[2]
        return f"The {kind} {choice!r} is not installed: pip install {shlex.quote(_EXTRAS[choice])}"
    if file.startswith("data/") and ("." in choice or "/" in file[5:]):
        files = "data.train=TRAIN data.dev=DEV data.test=TEST"
        return (
            f"data={file[5:]}: the group data chooses a kind of corpus, and its files are named by keys: "
            f"data=conllu {files} (or data=columns {files}). It has: {', '.join(options)}."
        )
    return f"There is no {choice!r} in group {group!r}.{did_you_mean(choice, options)} It has: {', '.join(options)}."


def about_grammar(override: str) -> str:
    """Explain an override that Hydra's grammar does not have."""
    if override.startswith("-"):
        return f"There is no option {override.partition('=')[0]}. Settings are written key=value; see structkd --help."
    found = re.fullmatch(r"([+~]{0,2}[\w.@/]+)=(.*)", override, re.DOTALL)
    if found is None:
        typed = re.fullmatch(r"([\w.@/]+)[\s:]+(\S+)", override)
        hint = f" Did you mean {_shell('='.join(typed.groups()))}?" if typed else ""
        return f"{override!r} is not of the form key=value.{hint}"
    key, value = found.groups()
    return f"{override!r} cannot be read. If the value is plain text, quote it twice: {_quoted(key, value)}"


def about_key(problem: str, full: str, keys: Sequence[str], root: Any) -> str:
    """Explain a key that its node does not have.

    Args:
        problem: Hydra's message.
        full: the key with the nodes that it was looked for in.
        keys: of the innermost node.
        root: of the configuration.
    """
    parent, _, key = full.rpartition(".")
    override = re.search(r"To append to your config use \+(.*)", problem, re.DOTALL)
    value = override.group(1).strip().partition("=")[2] if override else "..."
    said = [f"There is no key {key!r}{f' in {parent}' if parent else ''}."]
    typed = _meant(full, value, root)
    near = f"Did you mean {' or '.join(typed)}?" if typed else did_you_mean(key, [*keys, *([] if parent else _GROUPS)])
    said.append(near.strip())
    said.append(f"Known keys: {', '.join(each for each in keys if each != 'hydra')}.")
    if parent == "data" and not {"train", "path"} & set(keys):
        said.append("Files of your own are read with data=columns or data=conllu.")
    elif parent and not typed and not parent.startswith("hydra"):
        from structkd.runs.configuration import additions  # loads transformers, and only after an error

        owner, takes = additions(OmegaConf.select(root, parent) if root is not None else None, parent)
        if key in takes:
            said.append(f"It is {owner} and is added with a plus: {_shell(f'+{full}={value}')}.")
        elif not near and (close := difflib.get_close_matches(key, set(takes) - set(keys), n=1, cutoff=0.8)):
            said.append(f"Did you mean {_shell(f'+{parent}.{close[0]}={value}')}, {owner}?")
    return " ".join(each for each in said if each)


def about_value(problem: str, text: str) -> str:
    """Explain a value that its key does not take, or a choice for a key that has no group.

    Args:
        problem: Hydra's message.
        text: the same with its causes, in one paragraph.
    """
    if found := re.match(r"Ambiguous value for argument '(.*?)=(.*)'$", problem.partition("\n")[0]):
        key, value = found.groups()
        return (
            f"{key}={value} has a comma. For a list write {_shell(f'{key}=[{value}]')}; for plain text "
            f"{_quoted(key, value)}; for one run with each value add -m."
        )
    if found := re.match(r"Could not override '(.*?)'\.\s*To append to your config use \+.*?=(.*)", problem):
        typed = _chosen(found.group(1), found.group(2).strip())
        return f"There is no {found.group(1)} yet. Did you mean {typed}?" if typed else text
    if found := re.match(r"Could not override '(.*?)'\.", problem):
        return _about_groups(found.group(1), problem, text)
    found = re.match(r"Error merging override (.*)", problem)
    if found is None:
        return text
    override = found.group(1).strip()
    key, _, value = override.lstrip("+").partition("=")
    name = key.rpartition(".")[2]
    if re.search(r"Cannot assign \w+ to Dict|is not a subclass of", text):
        typed = _chosen(key, value)
        if typed:
            return f"{key} is a group of settings and no single value. Did you mean {typed}?"
    if found := re.search(r"Value .* could not be converted to \w+", text):
        everything = f" For all sentences write {key}=null." if name in ("labelled", "unlabelled") else ""
        return f"{found.group()}, which {key} has to be.{everything}"
    return text


def _about_groups(key: str, problem: str, text: str) -> str:
    appended = re.search(r"To append to your default list use \+\S*?=(.*)", problem)
    if appended is None:
        return text
    value = appended.group(1).strip()
    places = re.search(r"Did you mean to override (?:one of )?(.*)\?", problem)
    if key == "text":
        return f"Text without labels is the student's. Did you mean {_chosen('student.text', value)}?"
    if "@" not in key and places is not None:
        typed = " or ".join(_shell(f"{each}={value}") for each in places.group(1).split(", "))
        return f"Nothing is chosen from the group {key!r} by itself. Did you mean {typed}?"
    return f"Nothing is chosen for {key!r} yet, so it needs a plus. Did you mean {_shell(f'+{key}={value}')}?"


def _meant(full: str, value: str, root: Any) -> list[str]:
    """Return at most three overrides that set a key of this name, the likeliest first."""
    parent, _, key = full.rpartition(".")
    name = _ALIASES.get(key, key)
    if parent == "hydra.launcher":
        return [f"-m hydra/launcher={each} {full}={value}" for each in ("joblib", "submitit_local")]
    if parent.startswith("hydra"):
        return []
    places = [path for path in _paths(root) if path.rpartition(".")[2] == name and not path.startswith("baselines.")]
    inside = [path for path in places if parent and path.startswith(f"{parent.partition('.')[0]}.")]
    if name in _OF_TRAINERS and not (inside or (places and not parent)):
        roles = [role for role in ("student", "teacher") if parent.partition(".")[0] in ("", role)]
        return [f"+{role}.trainer.{name}={value}{_instead(root, role, name)}" for role in roles]
    order = ("student", "kd", "teacher")
    chosen = inside or ([] if parent.rpartition(".")[2] in ("trainer", *_NODES) else places)
    chosen.sort(key=lambda path: (path.count("."), path))
    chosen.sort(key=lambda path: order.index(first) if (first := path.partition(".")[0]) in order else len(order))
    return [
        _chosen(path, value) or _shell(f"{path}={value}") + _instead(root, path.partition(".")[0], name)
        for path in chosen[:3]
    ]


def _instead(root: Any, role: str, name: str) -> str:
    """Return the override that removes a number of steps, so that epochs count."""
    steps = OmegaConf.select(root, f"{role}.trainer.max_steps")
    return f" {role}.trainer.max_steps=null" if name == "num_train_epochs" and steps is not None else ""


def _paths(node: Any, prefix: str = "") -> Iterator[str]:
    for key in node:
        if prefix or key != "hydra":
            yield f"{prefix}{key}"
            inner = node._get_node(key)
            if isinstance(inner, DictConfig) and not (inner._is_none() or inner._is_missing()):
                yield from _paths(inner, f"{prefix}{key}.")


def _chosen(key: str, value: str) -> str:
    """Return the override that chooses a whole node from its group."""
    name = key.rpartition(".")[2]
    if key == "student.text":
        if re.search(r"[./]", value):
            return f"+text@student.text=lines {_shell(f'student.text.path={value}')} student.unlabelled=null"
        return _shell(f"+text@student.text={value}")
    if name in _NODES:
        return _shell(f"{name}@{key}={value}")
    if name == "loss":
        return _shell(f"{'kd' if key == 'kd.loss' else f'kd@{key[:-5]}'}={value}")
    if name == "interpolation":
        share = value if re.fullmatch(r"[\d.]+", value) else "0.5"
        return f"{key}.start={share} {key}.end={share}"
    if key.startswith("baselines"):
        shipped = key in ("baselines.none", "baselines.token")
        return _shell(f"kd@{key}={value}" if shipped else f"+kd@baselines.{value}={value}")
    if key.startswith("ensemble."):
        return _shell(f"+teacher@{key}={value}")
    return ""


def _quoted(key: str, value: str) -> str:
    """Quote an override, so that its value is read as plain text."""
    escaped = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), value)
    return shlex.quote(f'{key}="{escaped}"')


def _shell(override: str) -> str:
    # Brackets and braces would be expanded by some shells only, plus, @ and = by none.
    return override if re.fullmatch(r"[\w.,:/@%+= -]+", override) and '"' not in override else shlex.quote(override)
