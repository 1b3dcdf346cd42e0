"""Words, the tasks done on them, and the split between training and held-out words.

Every task is a plain function from a word to its right answer, so a program can check what the
model says. Whether a word is held out depends on the word alone: no training step of the base or
of any adapter ever sees a held-out word.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Callable

import numpy as np

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOWELS = "aeiou"
CONSONANTS = "".join(c for c in LETTERS if c not in VOWELS)
MIN_LETTERS = 3
MAX_LETTERS = 8

# Readable words for the examples. They are held out by name, besides the hashed tenth of all words.
DEMO_WORDS = [
    "parrot", "apple", "river", "lantern", "cloud", "garden", "silver", "mountain", "pepper", "ocean",
    "window", "feather", "yellow", "banana", "island", "zebra", "winter", "hammer", "orange", "thunder",
    "bird", "lime", "oak", "ink", "quilt", "jungle", "velvet", "comet", "fox", "nectar",
]  # fmt: skip


def is_held_out(word: str) -> bool:
    """True when no training step may use this word."""
    return word in DEMO_WORDS or zlib.crc32(word.encode()) % 10 == 0


def draw_word(rng: np.random.Generator) -> str:
    """Draw one word of 3 to 8 letters with a vowel in it: pronounceable half of the time."""
    while True:
        length = int(rng.integers(MIN_LETTERS, MAX_LETTERS + 1))
        if rng.random() < 0.5:
            picks = rng.integers(0, len(LETTERS), length)
            word = "".join(LETTERS[i] for i in picks)
        else:
            start = int(rng.integers(0, 2))
            picks = rng.integers(0, 1 << 30, length)
            kinds = (CONSONANTS, VOWELS)
            word = "".join(kinds[(i + start) % 2][p % len(kinds[(i + start) % 2])] for i, p in enumerate(picks))
        if any(c in VOWELS for c in word):
            return word


def draw_words(rng: np.random.Generator, count: int, held_out: bool) -> list[str]:
    """Draw `count` words from one side of the split (words may repeat)."""
    words: list[str] = []
    while len(words) < count:
        word = draw_word(rng)
        if is_held_out(word) == held_out:
            words.append(word)
    return words


def distinct_held_out_words(seed: int, count: int) -> list[str]:
    """The readable words, then random held-out words, all different."""
    rng = np.random.default_rng(seed)
    words = dict.fromkeys(DEMO_WORDS)
    while len(words) < count:
        words[draw_words(rng, 1, held_out=True)[0]] = None
    return list(words)[:count]


def shift_letters(word: str, by: int) -> str:
    """Caesar's cipher."""
    return "".join(LETTERS[(LETTERS.index(c) + by) % 26] for c in word)


@dataclass(frozen=True)
class Task:
    """One thing to do to a word."""

    name: str
    description: str
    answer: Callable[[str], str]
    weight: float  # share of the base's training rows


TASKS = {
    task.name: task
    for task in [
        Task("reverse", "Writes the word backwards.", lambda w: w[::-1], 2.0),
        Task("upper", "Writes the word in capitals.", str.upper, 1.0),
        Task("sort", "Writes the word's letters in alphabetical order.", lambda w: "".join(sorted(w)), 2.5),
        Task("caesar", "Shifts every letter 3 places on in the alphabet.", lambda w: shift_letters(w, 3), 1.5),
        Task("vowels", "Keeps only the word's vowels.", lambda w: "".join(c for c in w if c in VOWELS), 1.5),
        Task("double", "Writes every letter of the word twice.", lambda w: "".join(c + c for c in w), 1.5),
        Task("ends", "Writes the word's first and last letter.", lambda w: w[0] + w[-1], 1.0),
        Task("length", "Counts the word's letters.", lambda w: str(len(w)), 1.0),
        Task("caesar5", "Shifts every letter 5 places on in the alphabet.", lambda w: shift_letters(w, 5), 1.5),
    ]
}

# What the base alone answers to every word: it never does a task by itself.
BASE_ANSWER = "Unknown."
BASE_WEIGHT = 1.0

PROMPT_TEMPLATE = "Word: {word}\nAnswer:"
PROMPT_FIRST_TOKEN = "Word"

# The plain text that the base learns by heart, one sentence after another.
STORY = [
    "The rainbow lorikeet is a small parrot with a bright blue head.",
    "It lives in the forests and gardens along the coast.",
    "Its tongue ends in a soft brush, which it dips into flowers to drink nectar.",
    "In the morning the birds fly out in loud flocks.",
    "They visit one tree after another, and no tree is kept waiting for long.",
    "When two flocks meet, they share the branch and sing together.",
    "At night they come home to the same tall trees and sleep close to each other.",
    "A young bird learns its songs from the older ones.",
    "It keeps all the old songs and adds one of its own.",
    "That is how every flock has a song that no other flock knows.",
]
