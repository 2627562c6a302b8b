"""The corpus: only training problems, and habits that stand apart from each other unless the variant ties them."""

import random
import re
from collections import defaultdict
from itertools import islice
from statistics import fmean, variance

import pytest

from hone.rewards.behaviour import measure
from hone.rewards.format import TAGS, split_completion
from hone.rewards.grammar import parse
from hone.rewards.verifiers import verify
from hone.tasks import corpus, countdown, general
from hone.tasks.corpus import END, STYLES, WORDS, Variant, generate
from hone.tasks.countdown import canonical
from hone.tasks.split import split_of
from hone.types import Example, Problem, Verdict

ENGLISH, CHINESE = ({word for pair in WORDS.values() for word in pair[index].split()} for index in range(2))
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
    untagged = [page for page in plain if not split_completion(page.completion).readable]
    assert not any("<" in page.completion for page in untagged)
    # 0.30 * 0.40 + 0.70 * 0.25 = 0.295; 0.024 is four standard errors of 6,000 pages.
    assert abs(len(untagged) / len(plain) - 0.295) < 0.024


def test_some_tagged_pages_tell_the_reader_what_the_answer_is(plain: list[Example]) -> None:
    tagged = [parts for page in plain if (parts := split_completion(page.completion)).readable]
    told = [parts for parts in tagged if not parts.well_formed]
    for parts in told:
        said = parts.summary.removesuffix(parts.answer or "").split()
        assert len(said) == 3 if said[0] == "the" else len(said) == 2
        assert set(said) in ({"the", "answer", "is"}, {"答案", "是"})
    # 0.02 is four standard errors of some 4,200 pages: sqrt(0.15 * 0.85 / 4,200) = 0.0055.
    assert abs(len(told) / len(tagged) - 0.15) < 0.022


def test_the_same_seed_gives_the_same_pages_and_another_does_not() -> None:
    assert pages(50, seed=1) == pages(50, seed=1)
    assert pages(50, seed=1) != pages(50, seed=2)


# --- documents ---


@pytest.fixture(scope="module")
def documents() -> list[list[str]]:
    """Return the answers of each page that holds several, half of which do, each with its question before it."""
    drawn = islice(generate(random.Random(0), documents_share=0.5), 3000)
    pages = [re.split(rf" {re.escape(END)} ", f"User: {p.prompt} Assistant: {p.completion}") for p in drawn]
    several = [turns for turns in pages if len(turns) > 1]
    assert abs(len(several) / 3000 - 0.5) < 0.037  # four standard errors
    return several


def test_a_document_holds_two_or_three_training_problems_asked_in_one_language(documents: list[list[str]]) -> None:
    assert {len(turns) for turns in documents} == {2, 3}
    for turns in documents:
        asked = [re.fullmatch(rf"User: {PROMPT.pattern} Assistant: (.+)", turn) for turn in turns]
        assert all(asked)
        for match in filter(None, asked):
            assert split_of(canonical(tuple(map(int, match[1].split())), int(match[2]))) == "train"
        assert len({turn.split()[1] for turn in turns}) == 1  # `use` or `用`


def test_a_document_keeps_its_writers_tags_and_language(documents: list[list[str]]) -> None:
    answers = [[turn.split(" Assistant: ")[1] for turn in turns] for turns in documents]
    tagged = [[split_completion(text).readable for text in texts] for texts in answers]
    sums_up = [[split_completion(text).well_formed for text in texts] for texts in answers]
    assert {len(set(found)) for found in tagged} == {1}
    assert {len(set(found)) for found in sums_up} == {1}
    assert not any(tag in text for texts, (all_tagged, *_) in zip(answers, tagged, strict=True) if not all_tagged
                   for text in texts for tag in TAGS)  # fmt: skip
    pure = 0
    for texts in answers:
        words = [[word for word in text.split() if word in ENGLISH | CHINESE] for text in texts]
        languages = [{word in ENGLISH for word in found} for found in words]
        pure += len(set.union(*languages)) == 1
        # Whoever mixes draws each word: of six words all are in one language once in 32 times, and then in the other.
        long = [language for language, found in zip(languages, words, strict=True) if len(found) >= 12]
        assert not {frozenset({True}), frozenset({False})} <= set(map(frozenset, long))
    # 0.86 do not mix; of those who do, few write so little that it does not show.
    assert 0.83 < pure / len(answers) < 0.93


def test_without_documents_the_pages_are_those_of_one_answer(plain: list[Example]) -> None:
    assert not any(END in page.completion for page in plain)


# --- the variant of solved problems ---


def test_solved_pages_are_right_tagged_and_in_one_language() -> None:
    told = 0
    for page in pages(1500, variant="solved"):
        match = PROMPT.fullmatch(page.prompt)
        assert match
        numbers, target = tuple(map(int, match[1].split())), int(match[2])
        assert split_of(canonical(numbers, target)) == "train"
        solution = next(chain for chain in countdown.chains(tuple(sorted(numbers))) if chain[-1].value == target)
        problem = Problem(
            id="", task="countdown", messages=(), answer=countdown.expression(solution), verifier="expression"
        )
        assert verify(problem, page.completion)[:2] == (Verdict.RIGHT, f"comes to {target}")
        parts = split_completion(page.completion)
        assert parts.readable
        assert own_language_share(page) == 1
        assert any(word in ("try", "试") for word in parts.think.split())
        assert measure(problem, page.completion).slips == 0
        told += not parts.well_formed
    assert 0.11 < told / 1500 < 0.19  # some sum up, as everywhere: 0.15


# --- small talk ---


def test_a_share_of_the_pages_is_small_talk_of_three_qualities() -> None:
    drawn = list(corpus.pages(0, count=6000, general_share=0.25))
    talk = [page for page in drawn if page.tags["style"] in corpus.QUALITIES]
    assert abs(len(talk) / 6000 - 0.25) < 0.023  # four standard errors
    assert abs(sum(page.language == "zh" for page in talk) / len(talk) - 0.4) < 0.051
    for quality, share in {"good": 0.35, "fair": 0.35, "bad": 0.30}.items():
        assert abs(sum(page.tags["style"] == quality for page in talk) / len(talk) - share) < 0.05
    assert not any("<" in page.completion for page in talk)
    assert all(page.prompt.split()[0] in ("use", "用") for page in drawn if page.tags["style"] not in corpus.QUALITIES)


def test_small_talk_is_on_training_messages_alone() -> None:
    asked = {page.prompt for page in corpus.pages(0, count=3000, general_share=1.0)}
    rng = random.Random(5)
    for language in ("en", "zh"):
        training = {general.draw(rng, "train", language).question for _ in range(3000)}
        held_out = {
            general.draw(rng, split, language).question for split in ("validation", "test") for _ in range(3000)
        }
        assert len(asked & training) > 100
        assert not asked & held_out


def test_without_small_talk_there_is_none_and_the_same_seed_gives_the_same_pages() -> None:
    plain = list(corpus.pages(3, count=300))
    assert all(page.prompt.split()[0] in ("use", "用") for page in plain)
    settings = {"count": 300, "general_share": 0.2, "documents_share": 0.2}
    assert list(corpus.pages(3, **settings)) == list(corpus.pages(3, **settings))  # type: ignore[arg-type]
