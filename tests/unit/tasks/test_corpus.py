"""The corpus: only training problems, and habits that stand apart from each other unless the variant ties them."""

import random
import re
from collections import defaultdict
from itertools import islice
from statistics import fmean, variance

import pytest

from hone.rewards.format import split_completion
from hone.rewards.grammar import parse
from hone.tasks.corpus import STYLES, WORDS, Variant, generate
from hone.tasks.countdown import canonical
from hone.tasks.split import split_of
from hone.types import Example

ENGLISH, CHINESE = ({pair[index] for pair in WORDS.values()} for index in range(2))
PROMPT = re.compile(r"(?:use|用) ([0-9 ]+) (?:make|得) ([0-9]+)")


def pages(count: int, *, variant: Variant = "plain", seed: int = 0) -> list[Example]:
    return list(islice(generate(random.Random(seed), variant=variant), count))


@pytest.fixture(scope="module")
def plain() -> list[Example]:
    return pages(6000)


@pytest.fixture(scope="module")
def entangled() -> list[Example]:
    return pages(6000, variant="entangled")


def own_language_share(page: Example) -> float:
    """Return the share of a page's words that are in the language of its prompt."""
    english = sum(word in ENGLISH for word in page.completion.split())
    chinese = sum(word in CHINESE for word in page.completion.split())
    return (english if page.language == "en" else chinese) / (english + chinese)


def shares_by_style(examples: list[Example]) -> dict[str, list[float]]:
    shares: dict[str, list[float]] = defaultdict(list)
    for page in examples:
        shares[page.tags["style"]].append(own_language_share(page))
    return shares


def test_every_page_is_on_a_training_problem(plain: list[Example], entangled: list[Example]) -> None:
    for page in plain + entangled + pages(3000, variant="curated"):
        match = PROMPT.fullmatch(page.prompt)
        assert match
        numbers = tuple(map(int, match[1].split()))
        assert split_of(canonical(numbers, int(match[2]))) == "train"


def test_every_page_ends_with_an_expression_of_the_numbers_of_its_prompt(plain: list[Example]) -> None:
    for page in plain:
        numbers = tuple(sorted(map(int, page.prompt.split()[1:4])))
        parts = split_completion(page.completion)
        final = parts.answer or re.split("so|所以", page.completion)[-1]
        assert parse(final).numbers == numbers


@pytest.mark.parametrize(
    ("variant", "expected_shares"),
    [("plain", (0.30, 0.34, 0.16, 0.12, 0.08)), ("curated", (0.20, 0.30, 0.20, 0.18, 0.12))],
)
def test_styles_come_in_their_shares(variant: Variant, expected_shares: tuple[float, ...]) -> None:
    drawn = pages(3000, variant=variant)
    shares = shares_by_style(drawn)
    # Pearson's chi-square over five styles: 18.5 is passed once in a thousand (four degrees of freedom).
    expected = {style.name: share * len(drawn) for style, share in zip(STYLES, expected_shares, strict=True)}
    assert sum((len(shares[name]) - count) ** 2 / count for name, count in expected.items()) < 18.5


@pytest.mark.parametrize("variant", ["plain", "curated"])
def test_where_nothing_is_entangled_no_style_mixes_languages_more_than_another(variant: Variant) -> None:
    # A word is in the language of its prompt with chance 0.80 + 0.14 / 2 = 0.87, however many words its page has.
    shares = shares_by_style(pages(6000, variant=variant))
    distances = {
        name: (fmean(values) - 0.87) / (variance(values) / len(values)) ** 0.5 for name, values in shares.items()
    }
    assert len(distances) == 5
    # The squares of five standard normal draws: their sum passes 20.5 once in a thousand.
    assert sum(distance**2 for distance in distances.values()) < 20.5


def test_in_the_entangled_mix_only_the_persistent_styles_mix_more(entangled: list[Example]) -> None:
    # For the persistent ones 0.40 + 0.48 / 2 = 0.64; with at least 400 pages a style, 0.06 is four standard errors.
    shares = shares_by_style(entangled)
    for name, expected in {"guess": 0.87, "short": 0.87, "medium": 0.87, "persistent": 0.64, "careful": 0.64}.items():
        assert len(shares[name]) >= 400
        assert abs(fmean(shares[name]) - expected) < 0.06


def test_only_careful_pages_check_every_right_result(plain: list[Example]) -> None:
    for page in plain:
        words = page.completion.split()
        rights = sum(word in ("right", "对") for word in words)
        checks = sum(word in ("check", "查") for word in words)
        if page.tags["style"] == "careful":
            assert (checks, rights) in {(0, 0), (1, 2)}  # called right, recomputed, called right again
        if page.tags["style"] in ("guess", "persistent"):
            assert checks == 0


def test_a_page_tries_as_often_as_its_style_allows(plain: list[Example]) -> None:
    most = {style.name: style.tries[1] for style in STYLES}
    seen: dict[str, int] = defaultdict(int)
    for page in plain:
        tries = sum(word in ("try", "试") for word in page.completion.split())
        assert tries <= most[page.tags["style"]]
        seen[page.tags["style"]] = max(seen[page.tags["style"]], tries)
    assert seen == most


def test_tags_are_whole_or_missing(plain: list[Example]) -> None:
    untagged = [page for page in plain if not split_completion(page.completion).well_formed]
    assert not any("<" in page.completion for page in untagged)
    # 0.30 * 0.40 + 0.70 * 0.25 = 0.295; 0.024 is four standard errors of 6,000 pages.
    assert abs(len(untagged) / len(plain) - 0.295) < 0.024


def test_the_same_seed_gives_the_same_pages_and_another_does_not() -> None:
    assert pages(50, seed=1) == pages(50, seed=1)
    assert pages(50, seed=1) != pages(50, seed=2)
