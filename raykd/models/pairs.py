"""Which teacher can teach which student."""

from transformers import WhisperConfig

from raykd.errors import UserError
from raykd.models.pruning import kept_tokens, whole_vocabulary


def check_compatible(teacher: WhisperConfig, student: WhisperConfig) -> None:
    """Refuse a pair whose inputs or outputs differ, since teacher and student see the same mel and the same token ids.

    A vocabulary of 51 866 is refused beside one of 51 865 rather than mapped: large-v3 put <|yue|> among the languages, which
    shifts every later special token by one, but it also hears 128 mel channels instead of 80, so no published pair gains from a
    mapping.

    Raises:
        UserError: vocabulary, mel channels or window differ, or the student's label positions exceed the teacher's.
    """
    pairs = [
        (
            "vocabulary tokens",
            whole_vocabulary(teacher),
            whole_vocabulary(student),
            "token ids mean different things (51866 of large-v3 has <|yue|>, which shifts the ids after it)",
        ),
        ("mel channels", teacher.num_mel_bins, student.num_mel_bins, "they hear different features"),
        (
            "encoder positions",
            teacher.max_source_positions,
            student.max_source_positions,
            "their windows differ (50 positions a second)",
        ),
    ]
    if kept_tokens(teacher) not in (None, kept_tokens(student)):
        raise UserError(
            "student: the teacher's vocabulary was cut, and the student's is another; take the student's own vocabulary cut "
            "in the same way, or a teacher with its whole one"
        )
    for what, theirs, ours, meaning in pairs:
        if theirs != ours:
            raise UserError(
                f"student: the teacher has {theirs} {what}, the student {ours}: {meaning}; "
                "make the student from the teacher, or choose a pair of one Whisper generation"
            )
    if student.max_target_positions > teacher.max_target_positions:
        raise UserError(
            f"student: the student has {student.max_target_positions} label positions, the teacher only "
            f"{teacher.max_target_positions}; give the student at most as many (max_label_tokens)"
        )
