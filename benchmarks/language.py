"""How many lines a second language consistency judges by script on one core, beside a detector on the same lines.

The two do not do the same work: a detector names one language for a line, we count the words of each. It is what the
reward would cost without the script path. Times are processor time of this one thread.
"""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Callable

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from hone.rewards.language import language_consistency

NUM_RUNS, NUM_REPEATS = 7, 1000
LINES = [
    "So the total number of clips sold in both months is 48 + 24 = 72 in all.",
    "Wait, that cannot be right, since the second train leaves an hour later.",
    "Let x be the number of apples; then 3x + 5 = 20, which means that x = 5.",
    "Therefore each of the 12 boxes holds 6 eggs, and none of them is left over.",
    r"Since $\frac{a}{b} = \frac{2}{3}$, we have $3a = 2b$, and the rest follows.",
    "所以四月和五月一共卖出了四十八加二十四等于七十二个夹子，也就是说平均每个月卖出三十六个，答案没有问题，我们可以继续往下算了。",
    "等等，这一步好像不对，第二列火车是一个小时以后才出发的，所以我们需要重新检查一下前面的计算过程，再决定最后的结果是多少才行。",
    "设苹果的数量为 x，那么 3x + 5 = 20，移项可以得到 3x = 15，所以 x = 5，再代入原来的方程检验一下，两边相等。",
    "Natalia 在五月卖出的夹子是四月的一半，也就是 48 / 2 = 24 个，两个月一共卖出 48 + 24 = 72 个夹子。",
    "我们先算总数，so we add the two numbers，然后再除以二，得到 36 个，which is the answer we want。",
]
# What no counting of words can do without: to find the words of a line.
WORDS = re.compile(r"[A-Za-z]{2,}|[\u4e00-\u9fff]")


def lines_per_second(work: Callable[[str], object]) -> float:
    """Time one run over all lines, many times."""
    start = time.thread_time()
    for _ in range(NUM_REPEATS):
        for line in LINES:
            work(line)
    return NUM_REPEATS * len(LINES) / (time.thread_time() - start)


def main() -> None:
    detector = LanguageIdentifier.from_model_file(MODEL_FILE)
    detector.set_languages(["en", "zh"])
    sides: dict[str, Callable[[str], object]] = {
        "language_consistency": lambda line: language_consistency(line, "en"),
        "py3langid.classify": detector.classify,
        "limit: finding the words": WORDS.findall,
    }
    runs = [{name: lines_per_second(work) for name, work in sides.items()} for _ in range(NUM_RUNS)]
    medians = {name: statistics.median(run[name] for run in runs) for name in sides}
    mean_length = statistics.mean(map(len, LINES))
    print(f"lines a second, {NUM_RUNS} runs of {NUM_REPEATS * len(LINES):,} lines of {mean_length:.0f} characters")
    print(f"{'':<26}{'median':>10}{'lowest':>10}{'highest':>10}")
    for name in sides:
        speeds = [run[name] for run in runs]
        print(f"{name:<26}{medians[name]:>10,.0f}{min(speeds):>10,.0f}{max(speeds):>10,.0f}")
    ours, peer, limit = sides
    result = {
        "figure": round(medians[ours]),
        "unit": "lines/s",
        "peer": peer,
        "peer_figure": round(medians[peer]),
        "ratio": round(statistics.median(run[ours] / run[peer] for run in runs), 2),
        "limit_share": round(statistics.median(run[ours] / run[limit] for run in runs), 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
