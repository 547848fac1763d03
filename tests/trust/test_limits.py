"""Configurations and wheels that are made to grow, and configurations that read outside of their folder."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from structkd.commands.limits import LimitError, check_expansion, check_yaml
from structkd.commands.vetting import VettingLoader
from structkd.data import wheels

ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGED = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], z: *a{n - 1}}}\n" for n in range(1, 40)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ALIASES, "more than 100,000 values"),
        (MERGED, "more than 100,000 values"),
        ("a: &a [*a]\n", "inside of what it refers to"),
        ("[" * 100_000, "nested more than 100 deep"),
        ("".join(f"{' ' * n}a:\n" for n in range(150)), "nested more than 100 deep"),
        (f"a: {'x' * 2**20}\n", "at most 1,048,576"),
    ],
    ids=["aliases", "merged", "itself", "brackets", "blocks", "size"],
)
def test_yaml_that_grows_is_refused_before_it_does(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(LimitError, match=reason) as refused:
        check_yaml(tmp_path / "x.yaml")
    assert str(tmp_path / "x.yaml") in str(refused.value)


def test_ordinary_yaml_passes(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    for text in ("", "a: [1, 2]\n", "a: &a {x: 1}\nb: *a\nc: {<<: *a}\n", "a: [", "\tx: 1", "a: *unknown\n"):
        path.write_text(text)
        check_yaml(path)
    path.write_bytes(b"\xff")
    check_yaml(path)


def test_interpolations_that_grow_are_refused() -> None:
    doubling = {"k": {"a0": "x", **{f"a{n}": f"${{k.a{n - 1}}}${{.a{n - 1}}}" for n in range(1, 40)}}}
    lists = {"a0": ["x"] * 10, **{f"a{n}": [f"${{a{n - 1}}}"] * 10 for n in range(1, 12)}}
    chosen = {"a0": "x", **{f"a{n}": f"${{oc.select:a{n - 1},}}-${{oc.select:'a{n - 1}'}}" for n in range(1, 40)}}
    for content in (doubling, lists, chosen):
        with pytest.raises(LimitError, match=r"a\d+ has more than 10,000,000"):
            check_expansion(content)
    with pytest.raises(LimitError, match="too long a chain"):
        check_expansion({f"a{n}": f"${{a{n + 1}}}" for n in range(5000)})
    check_expansion({"a": "${b}", "b": "${a}", "c": "${oc.env:HOME}/${absent}", "d": ["${d}", "${c}", "${e.0}"]})


@pytest.mark.parametrize(
    "defaults",
    [
        ["../../secret"],
        ["/../../secret"],
        ["//{outside}/secret"],
        [{"../..": "secret"}],
        [{"x": "../../secret"}],
        ["link"],
    ],
    ids=str,
)
def test_defaults_stay_in_their_folder(defaults: list[object], tmp_path: Path) -> None:
    folder = tmp_path / "conf"
    (folder / "x").mkdir(parents=True)
    (tmp_path / "secret.yaml").write_text("password: the-secret\n")
    (folder / "x" / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    text = yaml.safe_dump({"defaults": defaults}).replace("{outside}", str(tmp_path))
    (folder / "x" / "evil.yaml").write_text(text)
    (folder / "x" / "good.yaml").write_text("defaults: [inner]\nvalue: 1\n")
    (folder / "x" / "inner.yaml").write_text("other: 2\n")
    (folder / "root.yaml").write_text("x: {}\n")
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hydra._internal.hydra.ConfigLoaderImpl", VettingLoader)
        patch.setattr("structkd.commands.vetting.vet", lambda *_: None)
        with initialize_config_dir(str(folder), version_base="1.3"):
            assert compose("root", ["+x=good"]).x == {"value": 1, "other": 2}
            with pytest.raises(LimitError, match="folder") as refused:
                compose("root", ["+x=evil"])
    GlobalHydra.instance().clear()
    assert "the-secret" not in str(refused.value)


def test_members_of_wheels_are_measured_before_they_are_unpacked(tmp_path: Path) -> None:
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(2**24))
        archive.writestr("ordinary", json.dumps(list(range(9000))))
    with pytest.raises(ValueError, match=r"bomb of x.whl unpacks from [0-9,]+ to 16,777,216 bytes"):
        wheels._extract(wheel, "bomb", "0" * 64, tmp_path / "bomb")
    with pytest.raises(ValueError, match=r"ordinary of x\.whl: sha256"):
        wheels._extract(wheel, "ordinary", "0" * 64, tmp_path / "ordinary")
    assert [path.name for path in tmp_path.iterdir()] == ["x.whl"]
