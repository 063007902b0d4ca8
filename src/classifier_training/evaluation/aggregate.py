"""Several runs of one configuration as one result: mean, spread and interval over seeds or folds.

The interval speaks of what another seed would give *with these images*; what other images would
give is the interval that each run's own evaluation has. Neither holds the other.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy import special

from classifier_training.errors import ConfigError
from classifier_training.run.identity import FREE_KEYS, below
from classifier_training.run.listing import StoredRunRow, changed_keys

SEED, FOLD, FOLDS = "seed", "data.split.fold", "data.split.folds"
# In what runs of one group may differ.
VARYING = (SEED, FOLD)


@dataclass(frozen=True)
class Mean:
    """One metric over the runs of a group.

    Attributes:
        count: Number of runs that have it.
        mean: Their mean.
        sd: Standard deviation over the runs (n - 1); None for one run.
        low: Lower bound of the 95 % t interval of the mean; None for one run.
        high: Upper bound.
    """

    count: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Group:
    """Runs that differ in seed or fold alone (or agree in the keys of ``--by``).

    Attributes:
        values: The keys in which the groups differ, with this group's values.
        runs: Its runs.
        means: By ``split/metric``.
        also_varies: Other keys that differ inside the group (only with ``--by``).
        over_folds: Whether the runs are folds, whose training sets overlap.
    """

    values: dict[str, Any]
    runs: tuple[StoredRunRow, ...]
    means: dict[str, Mean]
    also_varies: tuple[str, ...]
    over_folds: bool


@dataclass(frozen=True)
class Aggregate:
    """All groups, and the runs that are in none.

    Attributes:
        groups: In the order of their first run.
        left_out: (run, why).
    """

    groups: tuple[Group, ...]
    left_out: tuple[tuple[str, str], ...]


def aggregate(rows: Sequence[StoredRunRow], by: Sequence[str] = ()) -> Aggregate:
    """Group finished runs and average them.

    Args:
        rows: Of :func:`find_runs`.
        by: Keys, or sections of keys, that make a group; by default all but seed and fold.

    Raises:
        ConfigError: A key of ``by`` is in no configuration.
    """
    whole = [row for row in rows if row.is_whole]
    _require_known(by, whole)
    left_out = [(row.name, row.reason or row.status) for row in rows if not row.is_whole]
    kept = _latest_of_each(whole, left_out)
    groups: dict[str, list[StoredRunRow]] = {}
    for row in kept:
        groups.setdefault(_key(row, by), []).append(row)
    firsts = [members[0] for members in groups.values()]
    keys = [key for key in changed_keys(firsts) if (below(key, by) if by else key not in VARYING)]
    return Aggregate(
        tuple(_group(members, keys, by) for members in groups.values()), tuple(left_out)
    )


def mean_of(values: Sequence[float], *, folds: int | None = None) -> Mean:
    """Average values over runs.

    Args:
        values: One a run, at least one.
        folds: The ``k`` of cross-validation when the runs are folds. Their training sets overlap,
            so the variance of the mean is ``sd^2 (1/n + 1/(k-1))`` (Nadeau & Bengio 2003) and not
            ``sd^2 / n``.
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Mean(count, mean, None, None, None)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    share = 1 / count + (1 / (folds - 1) if folds else 0.0)
    half = float(special.stdtrit(count - 1, 0.975)) * sd * math.sqrt(share)
    return Mean(count, mean, sd, mean - half, mean + half)


def _group(members: list[StoredRunRow], keys: list[str], by: Sequence[str]) -> Group:
    over_folds = len({str(row.config.get(FOLD)) for row in members}) > 1
    folds = members[0].config.get(FOLDS) if over_folds else None
    names = dict.fromkeys(name for row in members for name in row.scores)
    means = {
        name: mean_of(
            [row.scores[name].value for row in members if name in row.scores], folds=folds
        )
        for name in names
    }
    inside = tuple(key for key in changed_keys(members) if key not in VARYING) if by else ()
    values = {key: members[0].config.get(key) for key in keys}
    return Group(values, tuple(members), means, inside, over_folds)


def _key(row: StoredRunRow, by: Sequence[str]) -> str:
    if by:
        chosen = {key: value for key, value in row.config.items() if below(key, by)}
        return json.dumps(chosen, sort_keys=True, default=str)
    chosen = {
        key: value
        for key, value in row.config.items()
        if key not in VARYING and not below(key, FREE_KEYS)
    }
    # Another fold is another split, hence another fingerprint of the same images.
    data = "" if row.config.get(FOLD) is not None else row.fingerprint
    return json.dumps([chosen, data], sort_keys=True, default=str)


def _latest_of_each(
    rows: Sequence[StoredRunRow], left_out: list[tuple[str, str]]
) -> list[StoredRunRow]:
    """Keep one run of those equal in everything, the seed too: a copy is no further evidence."""
    latest: dict[str, StoredRunRow] = {}
    for row in rows:
        config = {key: value for key, value in row.config.items() if not below(key, FREE_KEYS)}
        key = json.dumps([config, row.fingerprint], sort_keys=True, default=str)
        older = latest.get(key)
        if older is not None:
            newer = row if row.started > older.started else older
            other = older if newer is row else row
            left_out.append((other.name, f"the same configuration and seed as {newer.name}"))
            latest[key] = newer
        else:
            latest[key] = row
    kept = {id(row) for row in latest.values()}
    return [row for row in rows if id(row) in kept]


def _require_known(by: Sequence[str], rows: Sequence[StoredRunRow]) -> None:
    known = sorted({key for row in rows for key in row.config})
    for name in by:
        if known and not any(below(key, (name,)) for key in known):
            close = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(
                f"--by {name}: no run has this key",
                expected="keys or sections of config.yaml, separated by commas",
                fix=f"did you mean {close[0]}?" if close else "--by model.name,loss",
            )
