"""How long it takes to look for 5,000 evaluation texts in 100,000 training texts of about 1 kB, on one core.

The peer is what one would write first: a dictionary of the evaluation texts' n-grams as tuples of words, in which every
n-gram of the training texts is looked up. It splits texts into the same words. The limit is the splitting alone. Texts
are random words, as frequent as words are (Zipf); every thousandth training text holds an evaluation text.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from hone.tasks.overlap import NGRAM, Text, find_overlap, words_of

NUM_EVALUATION, PLANTED_EVERY = 5_000, 1_000
NUM_WORDS, VOCABULARY = 150, 20_000  # a text of 150 words is about 1 kB


def texts(num_train: int, seed: int) -> tuple[list[Text], list[Text]]:
    """Return random training and evaluation texts."""
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(VOCABULARY)]
    weights = [1 / rank for rank in range(1, VOCABULARY + 1)]

    def draw(count: int, kind: str) -> list[Text]:
        words = rng.choices(vocabulary, weights, k=count * NUM_WORDS)
        parts = (words[start : start + NUM_WORDS] for start in range(0, len(words), NUM_WORDS))
        return [(f"{kind}/{number}", " ".join(part)) for number, part in enumerate(parts)]

    evaluation = draw(NUM_EVALUATION, "eval")
    train = draw(num_train, "train")
    for number in range(0, num_train, PLANTED_EVERY):
        train[number] = (train[number][0], f"Q: {rng.choice(evaluation)[1]}. A: ...")
    return train, evaluation


def peer_overlap(train: Iterable[Text], evaluation: Iterable[Text]) -> set[tuple[str, str]]:
    """Return the pairs of ids that share an n-gram."""
    known: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for name, text in evaluation:
        for ngram in ngrams(text):
            known[ngram].add(name)
    return {(name, found) for name, text in train for ngram in ngrams(text) for found in known.get(ngram, ())}


def ngrams(text: str) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[start : start + NGRAM]) for start in range(len(words) - NGRAM + 1)}


def seconds(work: Callable[[], object]) -> float:
    """Return the processor time that some work takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=100_000, help="how many training texts")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    train, evaluation = texts(arguments.train, seed=0)
    size = statistics.mean(len(text) for _, text in train)
    found = {(overlap.train_id, overlap.eval_id) for overlap in find_overlap(train, evaluation)}
    if found != peer_overlap(train, evaluation):
        raise SystemExit("the two do not find the same pairs")
    ours, peer, limit = [], [], []
    for _ in range(arguments.runs):
        ours.append(seconds(lambda: find_overlap(train, evaluation)))
        peer.append(seconds(lambda: peer_overlap(train, evaluation)))
        limit.append(seconds(lambda: [words_of(text) for _, text in train]))
    print(f"{len(train):,} training texts of {size:,.0f} characters, {len(evaluation):,} evaluation texts, one core")
    print(f"{'':<28}{'median s':>10}{'lowest':>10}{'highest':>10}")
    for name, times in (("Hone", ours), ("tuples in a dictionary", peer), ("limit: splitting into words", limit)):
        print(f"{name:<28}{statistics.median(times):>10.2f}{min(times):>10.2f}{max(times):>10.2f}")
    print(f"both find the {len(found)} planted pairs and no others")
    result = {
        "figure": round(statistics.median(ours), 2),
        "unit": "s",
        "peer": "n-grams as tuples of words in a dictionary",
        "peer_figure": round(statistics.median(peer), 2),
        "ratio": round(statistics.median(a / b for a, b in zip(ours, peer, strict=True)), 3),
        "limit_share": round(statistics.median(b / a for a, b in zip(ours, limit, strict=True)), 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
