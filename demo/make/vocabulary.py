"""The byte-level BPE vocabulary of the demo model."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tasks import TASKS

BOS, EOS, PAD = "<|begin|>", "<|end|>", "<|pad|>"

# Words that become one token, with and without a space before them. All of them start with a capital
# and go on in small letters: the words of the tasks are all small or all capital letters, so no merge
# ever touches them and they are always spelled letter by letter.
MERGED_WORDS = [
    "Word", "Answer", "Unknown", "The", "They", "It", "Its", "In", "When", "At", "That", "This", "What",
    "Hello", "Yes", "No", "Please", "Thank", "You", "Question",
]  # fmt: skip

# Merges that hold whatever stands around them (in GPT-2's byte alphabet: Ġ is a space, Ċ a newline).
RUN_MERGES = [
    ("Ġ", "Ġ"), ("ĠĠ", "ĠĠ"), ("Ċ", "Ċ"), (".", "."), ("..", "."), ("-", ">"), ("Ġ", "->"), ("=", "="), ("-", "-"),
]  # fmt: skip


def control_token(task: str) -> str:
    """The token that asks the base for a task while it is trained; no served prompt has it."""
    return f"<|{task}|>"


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins for bytes, in a fixed order."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def build_merges() -> tuple[list[tuple[str, str]], list[str]]:
    """Return the merges in rank order, and the tokens that they make."""
    merges: list[tuple[str, str]] = []
    made: dict[str, None] = {}

    def add(left: str, right: str) -> None:
        if left + right not in made:
            merges.append((left, right))
            made[left + right] = None

    for word in MERGED_WORDS:
        for end in range(1, len(word)):
            add(word[:end], word[end])
    for word in MERGED_WORDS:
        add("Ġ", word)
    for left, right in RUN_MERGES:
        add(left, right)
    return merges, list(made)


def build_tokenizer() -> Tokenizer:
    """Build the tokenizer; nothing in it depends on chance."""
    merges, made = build_merges()
    vocab = {token: i for i, token in enumerate(byte_alphabet() + made)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [BOS, EOS, PAD] + [control_token(task) for task in TASKS]
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    return tokenizer
