"""How strong a LoRA's pairs are where no alpha stands beside them: by the file's header or by PEFT's configuration.

Sources: PEFT (adapter_config.json; rsLoRA, arXiv 2312.03732, divides by the root of the rank), the same in a header by
diffusers (`lora_adapter_metadata`, behind the component's name) and finetrainers (`lora_config`), kohya
(`ss_network_alpha`) and trainers of one model (`lora_alpha`, `network_alpha`, or `alpha` beside a rank).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite, sqrt
from os import scandir
from pathlib import Path
from typing import Any

from ..files.tensor_info import opened, short
from .names import PREFIXES, shorter_names, split

CONFIG, PEFT_FILE = "adapter_config.json", "adapter_model.safetensors"
MAX_CONFIG = 1_000_000  # bytes
PEFT_NAMES = "base_model.model."
TABLES = ("lora_adapter_metadata", "lora_config")  # in a header
NUMBERS = {"lora_alpha": ("lora_rank", "r", "rank"), "network_alpha": ("network_dim",)}  # and where the rank stands
WITH_RANK = {"alpha": ("rank", "r", "dim")}  # a word for much else, so that it counts beside a rank alone
KOHYA = {"ss_network_alpha": ("ss_network_dim",)}
# Starts of training that take the pair's first value out of the model's weights, by PEFT's names.
CHANGING = re.compile(r"pissa|olora|loftq|corda")
CHANGED = (
    "{} was trained on weights that its start ({}) had changed, so on this model it is another LoRA: let PEFT save it "
    "as a plain one (path_initial_model_for_weight_conversion)."
)
# Expressions that may take for ever on a name; no trainer writes them.
ENDLESS = re.compile(r"\)[*+{?]|(?:[*+{].*){4}")


@dataclass(frozen=True)
class ScaleRule:
    """source: where it stands, for a sentence.  alpha, rank: of every pair, None where that is not said.

    alphas, ranks: of pairs whose layer's name ends in what an expression fits, the first one that does.
    is_rooted: whether alpha is divided by the root of the rank.  start: what it started from, where the weights that
    it was trained on are not the model's.
    """

    source: str
    alpha: float | None
    rank: float | None = None
    alphas: Mapping[re.Pattern[str], float] = field(default_factory=dict)
    ranks: Mapping[re.Pattern[str], float] = field(default_factory=dict)
    is_rooted: bool = False
    start: str = ""

    def misfit(self, pairs: Mapping[str, int]) -> str:
        """The first of the pairs (key of its lower half -> rank) that has another rank than this rule says, or ""."""
        wanted = ((key, _first(self.ranks, key, self.rank)) for key, rank in pairs.items() if rank)
        return next((key for key, rank in wanted if rank is not None and rank != pairs[key]), "")

    def scale(self, key: str, rank: int) -> float:
        """Of the pair with this key of its lower half; PEFT scales what has no rank by the one it was asked for."""
        alpha, divisor = _first(self.alphas, key, self.alpha), rank or _first(self.ranks, key, self.rank)
        return alpha / (sqrt(divisor) if self.is_rooted else divisor) if alpha is not None and divisor else 1.0


def scale_rule(path: Path, metadata: Mapping[str, str], pairs: Mapping[str, int]) -> tuple[ScaleRule | None, list[str]]:
    """(what tells the scale of pairs that have no alpha beside them, sentences for the artist).

    metadata: of the file's header.  pairs: key of each one's lower half -> rank, 0 for a LoKr that has none.
    """
    if not pairs:
        return None, []
    refused = []
    for source, fields in _sources(path, metadata, pairs):
        try:
            rule = _rule(source, fields)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            refused.append(f"{source} of {path.name} cannot be read ({short(str(error))}): its pairs run at scale 1.")
            continue
        if rule.alpha is None and not rule.alphas:
            continue
        misfit = rule.misfit(pairs)
        if not misfit:
            is_told = any(rule.scale(key, rank) != 1 for key, rank in pairs.items())
            told = [f"{path.name} is scaled as {source} says."] if is_told else []
            return rule, told + ([CHANGED.format(path.name, rule.start)] if rule.start else [])
        refused.append(
            f"{source} of {path.name} is for pairs of other ranks ({short(misfit)} has rank {pairs[misfit]}), so it is "
            "not heeded: its pairs run at scale 1."
        )
    if not refused and all(key.startswith(PEFT_NAMES) for key in pairs):
        refused.append(
            f"{path.name} was saved by PEFT, which writes the scale into {CONFIG}: without that file its pairs run at "
            "scale 1, so put both into a folder of their own."
        )
    return None, refused


def config_beside(path: Path) -> Path | None:
    """PEFT's configuration of a LoRA, None if there is none.

    It belongs to the file that PEFT saves beside it, under that name or as the only one there. Links are followed one
    step: behind it a hub's cache calls its files by numbers.
    """
    for place in (path, path.parent / path.readlink()) if path.is_symlink() else (path,):
        config = place.with_name(CONFIG)
        if config.is_file() and (place.name == PEFT_FILE or _is_alone(place)):
            return config
    return None


def _is_alone(path: Path) -> bool:
    with scandir(path.parent) as entries:
        names = [entry.name.lower() for entry in entries if not entry.name.startswith(".")]
    return sum(name.endswith(path.suffix.lower()) for name in names) == 1


def _sources(path: Path, metadata: Mapping[str, str], pairs: Mapping[str, int]) -> Iterator[tuple[str, Any]]:
    """(where it stands, a configuration in PEFT's words or what should be one), the nearest first."""
    for name in TABLES:
        if name in metadata:
            yield f"{name} in the header", metadata[name]
    # A converted file has other names than kohya's: its header stayed as it was, but the scale went into the weights.
    numbers = NUMBERS | WITH_RANK | (KOHYA if all("lora_down" in key for key in pairs) else {})
    for name, ranks in numbers.items():
        if name in metadata:
            rank = next((metadata[rank] for rank in ranks if rank in metadata), None)
            if rank is not None or name not in WITH_RANK:
                yield f"{name} in the header", {"r": _parsed(rank), "lora_alpha": _parsed(metadata[name])}
    config = config_beside(path)
    if config is not None:
        with opened(config) as (file, _):
            yield CONFIG, file.read(MAX_CONFIG).decode("utf-8-sig", "replace")


def _parsed(text: str | None) -> Any:
    """A number in a header's text, otherwise the text."""
    try:
        return None if text is None or text == "None" else float(text)
    except ValueError:
        return text


def _rule(source: str, fields: Any) -> ScaleRule:
    """Raises ValueError, TypeError, OverflowError or RecursionError for what is no configuration."""
    fields = json.loads(fields) if isinstance(fields, str) else fields
    if not isinstance(fields, dict):
        raise TypeError("it is no table")
    fields = _of_network(fields)
    alpha = fields.get("lora_alpha", fields.get("alpha"))
    rank = fields.get("r", fields.get("rank"))
    return ScaleRule(
        source,
        None if alpha is None else _number(alpha),
        None if rank is None else _number(rank),
        _patterns(fields.get("alpha_pattern")),
        _patterns(fields.get("rank_pattern")),
        bool(fields.get("use_rslora")),
        start if CHANGING.match(start := str(fields.get("init_lora_weights"))) else "",
    )


def _of_network(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields without the component's name before them, as diffusers has it: those of the transformer."""
    components = ("", *(f"{prefix}{number}." for number in ("", "_1", "_2") for prefix in PREFIXES))
    found = next((name for name in components if f"{name}r" in fields or f"{name}lora_alpha" in fields), "")
    return {key.removeprefix(found): value for key, value in fields.items() if key.startswith(found)}


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _patterns(given: Any) -> dict[re.Pattern[str], float]:
    if given and not isinstance(given, dict):
        raise TypeError(f"{given!r} is no table")
    return {_expression(name): _number(value) for name, value in (given or {}).items()}


def _expression(pattern: str) -> re.Pattern[str]:
    """As PEFT reads it: for the end of a name, from a dot on."""
    try:
        if not ENDLESS.search(pattern):
            return re.compile(rf"(?:.*\.)?(?:{pattern})$")
    except re.error:
        pass
    raise ValueError(f"{pattern!r} is no name of layers")


def _first(patterns: Mapping[re.Pattern[str], float], key: str, otherwise: float | None) -> float | None:
    if not patterns:
        return otherwise
    names = list(shorter_names((split(key) or (key,))[0]))
    fitting = (value for pattern, value in patterns.items() if any(map(pattern.match, names)))
    return next(fitting, otherwise)
