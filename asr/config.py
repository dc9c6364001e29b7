"""Configuration: dataclasses are the schema; YAML files in `conf/` and `key=value` arguments override defaults.

Hydra puts the YAML files together; OmegaConf checks types. An unknown key or a bad value is a one-line `ConfigError`.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from asr.errors import ConfigError

Schema = TypeVar("Schema")


def resource(name: str) -> Path:
    """Find a folder that travels with the package.

    Args:
        name: `conf` or `recipes`.

    Returns:
        The folder inside an installed package, or the one beside `asr/` in a checkout.
    """
    package = Path(__file__).parent
    installed = package / "_resources" / name
    return installed if installed.is_dir() else package.parent / name


def check_choice(key: str, value: object, choices: Sequence[object]) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        ConfigError: it names the key, the choices and the value.
    """
    if value not in choices:
        raise ConfigError(f"{key} must be one of {', '.join(map(str, choices))}, got {value!r}")


def suggest(word: str, known: Sequence[str]) -> str:
    """Say what was probably meant: `; did you mean 'x'?`, or the list of what there is."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; there is: {', '.join(sorted(known))}"


def build(schema: type[Schema], values: Mapping[str, Any], origin: str) -> Schema:
    """Fill a dataclass, and those nested in it, from plain values.

    Args:
        schema: a dataclass type.
        values: nested dictionaries, as read from YAML or JSON; what is missing keeps its default.
        origin: where the values came from, for error messages.

    Raises:
        ConfigError: a key is unknown, or a value has the wrong type or is refused by the dataclass, or one refers to
            others: from a stranger's file, that could tell the environment or fill the memory.
    """
    node = _unlocked(schema)
    if "${" in json.dumps(values, default=str):
        raise ConfigError(f"{origin}: no value may refer to others by ${{...}}")
    try:
        return OmegaConf.to_object(OmegaConf.merge(node, OmegaConf.create(dict(values))))  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{origin}: {_explain(error, _keys(node))}") from error


def compose(schema: type[Schema], name: str, overrides: Sequence[str] = ()) -> Schema:
    """Put a configuration together from a YAML file, what its defaults list names, and overrides.

    Args:
        schema: a dataclass type, which the YAML files call `/schema` in their defaults list.
        name: a file of `conf/recipe` without its ending, `lm/` and one of `conf/lm`, or the path of a YAML file of
            one's own.
        overrides: `key=value` with dotted keys, or `group=name` to choose another file of `conf/group`.

    Raises:
        ConfigError: no such file, or a key or value is wrong.
    """
    import hydra  # only training composes; checkpoints are read without it
    import yaml
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException

    conf = resource("conf")
    own = Path(name)
    if own.suffix == ".yaml":
        if not own.is_file():
            raise ConfigError(f"{name}: no such configuration file")
        folder, entry = own.resolve().parent, own.stem
        quoted = str(conf).replace("\\", "\\\\").replace("'", "\\'")  # the grammar of overrides has marks of its own
        search = [f"hydra.searchpath=['file://{quoted}']"]
    else:
        known = [path.stem for path in (conf / "recipe").glob("*.yaml")]
        known += [f"lm/{path.stem}" for path in (conf / "lm").glob("*.yaml")]
        if name not in known:
            raise ConfigError(f"no configuration {name!r} in conf/recipe{suggest(name, known)}")
        folder, entry, search = conf, name if name.startswith("lm/") else f"recipe/{name}", []
    node = _unlocked(schema)
    _check_overrides(overrides, _keys(node), [path.name for path in conf.iterdir() if path.is_dir()])
    overrides = [change for override in overrides for change in _expand(override, conf)]
    ConfigStore.instance().store(name="schema", node=node)
    try:
        with hydra.initialize_config_dir(str(folder), version_base="1.3"):
            composed = hydra.compose(entry, [*overrides, *search])
        # A file of one's own may leave /schema out of its defaults list: then nothing has been checked yet.
        return OmegaConf.to_object(OmegaConf.merge(node, composed))  # type: ignore[return-value]
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, OSError) as error:
        raise ConfigError(f"{name}: {_explain(error, _keys(node))}") from error


def _unlocked(schema: type) -> DictConfig:
    """Make a node that can be merged into: OmegaConf takes frozen dataclasses for read-only at every level."""
    node = OmegaConf.structured(schema)
    pending = [node]
    while pending:
        part = pending.pop()
        OmegaConf.set_readonly(part, False)
        pending += [child for child in part.values() if isinstance(child, DictConfig)]
    return node


def _keys(node: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for key, value in node.items():
        keys.append(f"{prefix}{key}")
        if isinstance(value, DictConfig):
            keys += _keys(value, f"{prefix}{key}.")
    return keys


def _check_overrides(overrides: Sequence[str], keys: list[str], groups: list[str]) -> None:
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals:
            raise ConfigError(f"{override!r} is no override: write key=value")
        if key not in keys and key not in groups:
            raise ConfigError(f"unknown configuration key {key!r}{suggest(key, keys)}")


def _expand(override: str, conf: Path) -> list[str]:
    """Turn `debug=name` into the changes of conf/debug/name.yaml; any other override stays what it is.

    Hydra could only do so for a group that the recipe's own defaults list names.
    """
    group, _, name = override.partition("=")
    if group != "debug":
        return [override]
    known = [path.stem for path in (conf / "debug").glob("*.yaml")]
    if name not in known:
        raise ConfigError(f"no debug mode {name!r}{suggest(name, known)}")
    node = cast("DictConfig", OmegaConf.load(conf / "debug" / f"{name}.yaml"))
    values = {key: OmegaConf.select(node, key) for key in _keys(node)}
    return [f"{key}={value}" for key, value in values.items() if not OmegaConf.is_dict(value)]


def _explain(error: Exception, keys: list[str]) -> str:
    """Shorten a library's message to one line, and add what was probably meant."""
    cause: BaseException = error
    seen: list[BaseException] = []  # under a debugger OmegaConf makes an error its own cause
    while cause.__cause__ is not None and cause not in seen:
        seen.append(cause)
        cause = cause.__cause__
    message = str(cause).strip()
    found = re.search(r"full_key: (\S+)", message)
    full_key = getattr(cause, "full_key", None) or (found and found[1])
    if full_key and full_key not in keys:
        return f"unknown configuration key {full_key!r}{suggest(full_key, keys)}"
    one_line = " ".join(message.split("full_key:")[0].split())[:300]
    return f"{full_key}: {one_line}" if full_key else one_line
