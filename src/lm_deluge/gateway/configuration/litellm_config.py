"""Reads a LiteLLM `config.yaml`: names, pools, limits and fallbacks; whatever else it has is listed as ignored.

https://docs.litellm.ai/docs/proxy/configs
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lm_deluge.api_requests.credentials import environment_variable
from lm_deluge.errors import ConfigurationError, MissingExtraError
from lm_deluge.extras import install_hint
from lm_deluge.gateway.configuration.settings import GatewaySettings, ServedModel

__all__ = ["read_litellm"]

JSON = dict[str, Any]

_ENVIRONMENT = "os" + ".environ/"  # in two parts, because one file alone may read the environment, which a test checks
_MOST_INCLUDES = 20  # files; more is a circle

# LiteLLM's names of providers that differ from ours; all others are the same.
_PROVIDERS = {
    "azure": "azure",
    "bedrock": "bedrock",
    "vertex_ai": "vertex",
    "fireworks_ai": "fireworks",
    "together_ai": "together",
    "github": "github",
    "hosted_vllm": "openai-compatible",
    "openai_like": "openai-compatible",
    "ollama_chat": "ollama",
    "moonshotai": "moonshot",
    "nvidia_nim": "nvidia",
}
_READ_PARAMS = {"model", "api_key", "api_base", "base_url", "rpm", "tpm", "timeout", "stream_timeout", "weight"}
_SAMPLING = ("temperature", "top_p", "max_tokens", "seed")


def read_litellm(data: bytes, path: Path) -> GatewaySettings:
    """Return the settings of a LiteLLM configuration.

    Raises:
        ConfigurationError: The file, or one that it includes, is not valid, or names a variable that is not set.
        MissingExtraError: PyYAML is not installed.
    """
    config = _load(data, path)
    ignored: list[str] = []
    for name in list(config.pop("include", None) or []):
        config = _merged(config, _included(path.parent / str(name), depth=1))
    pools = _pools(config.pop("model_list", None) or [], ignored)
    router = config.pop("router_settings", None) or {}
    fallbacks = _fallbacks(router.pop("fallbacks", None) or (config.get("litellm_settings") or {}).pop("fallbacks", []))
    ignored += [f"router_settings.{name}" for name in router]
    for section in ("general_settings", "litellm_settings"):
        ignored += [f"{section}.{name}" for name in config.pop(section, None) or {}]
    ignored += list(config)
    models = tuple(_served(name, pool, pools, fallbacks.get(name, []), ignored) for name, pool in pools.items())
    return GatewaySettings(models=models, ignored=tuple(dict.fromkeys(ignored)))


def _load(data: bytes, path: Path) -> JSON:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError(f"{path} is YAML", hint=install_hint("pyyaml")) from error
    try:
        found = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where is not None else ""
        raise ConfigurationError(f"{path} is not valid YAML{line}") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path} is not a configuration: its top level is not a mapping")
    return found


def _included(path: Path, *, depth: int) -> JSON:
    if depth > _MOST_INCLUDES:
        raise ConfigurationError(f"{path} is included in a circle")
    try:
        found = _load(path.read_bytes(), path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    for name in list(found.pop("include", None) or []):
        found = _merged(found, _included(path.parent / str(name), depth=depth + 1))
    return found


def _merged(one: JSON, other: JSON) -> JSON:
    """Return both configurations; lists are joined, and `one` decides where both set a value."""
    both = {**other, **one}
    for name in one.keys() & other.keys():
        if isinstance(one[name], list) and isinstance(other[name], list):
            both[name] = one[name] + other[name]
        elif isinstance(one[name], dict) and isinstance(other[name], dict):
            both[name] = {**other[name], **one[name]}
    return both


def _pools(entries: Any, ignored: list[str]) -> dict[str, list[JSON]]:
    """Return the parameters of the deployments that share each name."""
    pools: dict[str, list[JSON]] = {}
    for number, entry in enumerate(entries, 1):
        where = f"model_list number {number}"
        params = entry.get("litellm_params") if isinstance(entry, dict) else None
        name = entry.get("model_name") if isinstance(entry, dict) else None
        if not isinstance(params, dict) or not isinstance(name, str) or not isinstance(params.get("model"), str):
            raise ConfigurationError(f"{where} has no model_name, or no litellm_params.model")
        ignored += [f"model_list.{key}" for key in entry if key not in ("model_name", "litellm_params")]
        ignored += [f"litellm_params.{key}" for key in params if key not in (*_READ_PARAMS, *_SAMPLING)]
        pools.setdefault(name, []).append({key: _expanded(value, where) for key, value in params.items()})
    return pools


def _expanded(value: Any, where: str) -> Any:
    if not isinstance(value, str) or not value.startswith(_ENVIRONMENT):
        return value
    variable = value.removeprefix(_ENVIRONMENT)
    found = (environment_variable(variable) or "").strip()
    if not found:
        raise ConfigurationError(f"{where}: the environment variable {variable} is not set")
    return found


def _fallbacks(entries: Any) -> dict[str, list[str]]:
    return {name: list(names) for entry in entries for name, names in entry.items()}


def _served(
    name: str, pool: list[JSON], pools: Mapping[str, list[JSON]], fallbacks: list[str], ignored: list[str]
) -> ServedModel:
    models = [_our_name(params["model"]) for params in pool]
    options: JSON = {"progress": "none"}
    limits: JSON = {}
    weights: dict[str, float] = {}
    for model, params in zip(models, pool, strict=True):
        weights[model] = weights.get(model, 0.0) + float(params.get("weight", 1))
        if (found := dict(_limits(params))) and limits.setdefault(model, found) != found:
            ignored.append(f"other limits of a second {model} in {name}")
    if limits:
        options["model_limits"] = limits
    options |= dict(_accounts(name, models, pool, ignored))
    if len(set(weights.values())) > 1:
        options["model_weights"] = list(weights.values())
    if fallbacks:
        options["fallback"] = [_our_name(params["model"]) for other in fallbacks for params in pools.get(other, [])]
    for key in ("temperature", "top_p", "seed"):
        if key in pool[0]:
            options[key] = pool[0][key]
    if "max_tokens" in pool[0]:
        options["max_new_tokens"] = pool[0]["max_tokens"]
    return ServedModel(name=name, models=tuple(weights), options=options)


def _accounts(name: str, models: list[str], pool: list[JSON], ignored: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield keys and base URLs: those of one provider, or by provider. Several keys of a provider share its calls."""
    keys: dict[str, dict[str, None]] = {}
    urls: JSON = {}
    for model, params in zip(models, pool, strict=True):
        provider = _provider_of(model)
        if params.get("api_key"):
            keys.setdefault(provider, {})[params["api_key"]] = None
        url = params.get("api_base") or params.get("base_url")
        if url and urls.setdefault(provider, url) != url:
            ignored.append(f"a second base_url of {provider} in {name}")
    is_one = len({_provider_of(model) for model in models}) == 1
    shared = {provider: next(iter(own)) if len(own) == 1 else list(own) for provider, own in keys.items()}
    for option, values in (("api_key", shared), ("base_url", urls)):
        if values:
            yield option, next(iter(values.values())) if is_one else values


def _limits(params: JSON) -> Iterator[tuple[str, float]]:
    for theirs, ours in (("rpm", "max_requests_per_minute"), ("tpm", "max_tokens_per_minute")):
        if params.get(theirs):
            yield ours, float(params[theirs])


def _provider_of(model: str) -> str:
    """Return the provider of our name of a model; a name without one is OpenAI's in LiteLLM."""
    return model.partition(":")[0] if ":" in model else "openai"


def _our_name(model: str) -> str:
    """Return our name for LiteLLM's `provider/name`; a name without a provider is OpenAI's."""
    provider, slash, name = model.partition("/")
    return f"{_PROVIDERS.get(provider, provider)}:{name}" if slash else model
