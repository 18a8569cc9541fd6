"""Keys of what evaluations measure, with the headings they are shown under."""

ON_REQUEST = {
    "invalid_word_share": "invalid words",
    "loss": "loss",
    "teacher_forced_wer": "teacher-forced WER",
    "teacher_forced_cer": "teacher-forced CER",
    "expert_use_encoder": "expert use, encoder",
    "expert_use_decoder": "expert use, decoder",
}
"""Of a recogniser, and absent from a summary where it was not asked for: the share of hypothesis words that are not in the
vocabulary (`vocabulary`), the mean cross-entropy of a label token in nats, and arg-max error rates with gold prefixes
(`teacher_forced`); of a model with language experts the share of tokens and layers that go through one (`expert_use`). Shares
and rates are fractions of 1."""

MASKED_LM = {"top1_accuracy": "top-1", "top5_accuracy": "top-5", "pseudo_perplexity": "pseudo-perplexity"}
"""Of a masked language model, beside its loss (`masked_lm`)."""

HEADINGS = {"wer": "WER", "cer": "CER", **ON_REQUEST, **MASKED_LM}
