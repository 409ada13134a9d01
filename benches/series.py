"""What the makers of series share: words, dice, sizes, and writing one file for each night.

A series is a folder with day0.SUFFIX, day1.SUFFIX, ... Night N is read from night N-1's file and written with some changes, so no maker
holds a night in memory, and the same arguments give the same bytes.
"""
import argparse
import bisect
import functools
import itertools
import os
import random
from datetime import datetime, timedelta
from pathlib import Path

from measure import BLOCK, size


@functools.cache
def vocabulary(size):
    """Made-up words, the same for every seed, and for each the sum of how often it and those before it come."""
    dice = random.Random("vocabulary")
    syllables = [a + b for a in "bcdfghjklmnprstvwz" for b in "aeiou"]
    endings = ["", "", "", "s", "n", "r", "ed", "ing", "ly"]
    words = {}
    while len(words) < size:
        words["".join(dice.choices(syllables, k=dice.randint(1, 4))) + dice.choice(endings)] = None
    return list(words), list(itertools.accumulate(1 / (rank + 8) for rank in range(size)))


class Dice(random.Random):
    """Words come as often as words of a language do (Zipf)."""

    def __init__(self, seed):
        super().__init__(seed)
        self.known, self.shares = vocabulary(8000)

    def words(self, count):
        total = self.shares[-1]
        return [self.known[bisect.bisect(self.shares, self.random() * total)] for _ in range(count)]

    def text(self, mean, most):
        """Words in a row, about `mean` of them."""
        return " ".join(self.words(min(3 + int(self.expovariate(1 / mean)), most)))

    def happens(self, share):
        return self.random() < share


def night(day):
    """When the dump of a night was made."""
    return datetime(2026, 3, 1, 2, 15, 7) + timedelta(days=day, seconds=day * 37 % 11)


def count(text):
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is no number")
    return int(text)


def arguments(doc, size_of_a_night):
    """What every maker takes; the caller may add to it and then calls parse_args."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the series; made if missing")
    parser.add_argument("--size", type=size, default=size(size_of_a_night), metavar="BYTES", help=f"of day 0, about; default: {size_of_a_night}")
    parser.add_argument("--days", type=count, default=3, metavar="N", help="nights after day 0; default: 3")
    parser.add_argument("--seed", type=count, default=1, metavar="N", help="default: 1")
    return parser


def make(options, suffix, write):
    """Calls write(path, day, path of the day before or None) for each night; a file gets its name when it is whole."""
    options.out.mkdir(parents=True, exist_ok=True)
    before = None
    for day in range(options.days + 1):
        path = options.out / f"day{day}{suffix}"
        partial = options.out / f".day{day}.partial"
        write(partial, day, before)
        os.replace(partial, path)
        print(f"{path}: {path.stat().st_size} bytes", flush=True)
        before = path
