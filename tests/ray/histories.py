"""What the history of a run says whose driver was killed."""

from raykd.tracking.history import History


def recorded_steps(history: History, steps: int) -> list[int]:
    """The steps that the history has, each once and in order; one that it lacks is told in an event.

    Workers that outlive their killed driver train on and write checkpoints, and nobody is left to write their records.
    """
    found = [record["step"] for record in history.train]
    lacking = set(range(1, steps + 1)) - set(found)
    assert found == [step for step in range(1, steps + 1) if step not in lacking]
    said = [record["text"] for record in history.events if "the history lacks" in record["text"]]
    assert said == [] if not lacking else f"lacks {len(lacking)} of the first" in said[-1]
    return found
