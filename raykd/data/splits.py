"""Which split each utterance belongs to, where the source leaves that open. Pure functions of ids."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from raykd.config.data import DataConfig

UNUSED_DEV = "dev_unused"
"""Utterances of the source's own dev split beyond `data.max_dev_utterances`: neither trained on nor evaluated."""
_FEWEST_TO_CARVE = 3
"""Utterances of a language from which dev and test can be cut with something left to train on."""


def assign_splits(
    ids: Sequence[str], languages: Sequence[str], splits: Sequence[str | None], config: DataConfig
) -> NDArray[np.object_]:
    """The split of each utterance.

    With a `dev_share` of 0 nothing is cut: an utterance has the split its source names, or `all` where that names none.

    Without one an utterance is in `train`. A language that has no dev utterances gets those of its train utterances whose id
    hash is below `dev_share`; where `test_splits` asks for `test`, a language with no utterances in it nor in another of them
    gets the next `dev_share` as `test`; at least one each.
    Of all dev utterances the `max_dev_utterances` with the smallest hashes stay; of the others the source's own become
    `dev_unused` and the carved ones go back to `train`. Hashes decide, so more data moves hardly an utterance between splits.
    """
    if config.dev_share == 0:
        return np.array([split or "all" for split in splits], dtype=object)
    assigned = np.array([split or "train" for split in splits], dtype=object)
    spoken = np.asarray(languages, dtype=object)
    hashes = np.array([_id_hash(utterance_id) for utterance_id in ids], np.float64)
    own_dev = assigned == "dev"
    wants_test = "test" in config.test_splits
    for language in np.unique(spoken.astype(str)):
        here = spoken == language
        train = np.flatnonzero(here & (assigned == "train"))
        if len(train) < _FEWEST_TO_CARVE:
            continue
        train = train[np.argsort(hashes[train], kind="stable")]
        has_test = np.isin(assigned[here], config.test_splits).any()
        if not own_dev[here].any():
            cut = max(1, int((hashes[train] < config.dev_share).sum()))
            assigned[train[:cut]] = "dev"
            train = train[cut:]
        if wants_test and not has_test:
            within = (hashes[train] >= config.dev_share) & (hashes[train] < 2 * config.dev_share)
            assigned[train[within] if within.any() else train[:1]] = "test"
    dev = np.flatnonzero(assigned == "dev")
    beyond = dev[np.argsort(hashes[dev], kind="stable")][config.max_dev_utterances :]
    assigned[beyond] = np.where(own_dev[beyond], UNUSED_DEV, "train")
    return assigned


def split_warnings(utterances: Mapping[str, int], config: DataConfig) -> list[str]:
    """What of the splits is not as the config has it, from the utterances in each: a name without any, a split for nothing."""
    found = []
    missing = [name for name in config.test_splits if name not in utterances]
    if missing and config.test_splits != DataConfig.model_fields["test_splits"].default:
        found.append(f"data.test_splits names {', '.join(missing)}, which has no utterances; there are {', '.join(utterances)}")
    for name in sorted(set(utterances) - {"train", "dev", "all", UNUSED_DEV, *config.test_splits}):
        found.append(
            f"split {name} ({utterances[name]} utterances) is neither trained nor scored on; name it in data.test_splits, or "
            "call its rows train, dev or test"
        )
    return found


def _id_hash(utterance_id: str) -> float:
    """A number from 0 to 1 that follows from the id."""
    return int.from_bytes(hashlib.blake2b(utterance_id.encode(), digest_size=8).digest(), "big") / 2**64
