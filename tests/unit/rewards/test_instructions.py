"""IFEval's 25 kinds of instruction, kind by kind: what follows each at its boundary, strictly and loosely."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from keys import answer_key

from hone.rewards.constraints import KINDS, language_of
from hone.rewards.instructions import Followed, followed, needs_language
from hone.rewards.language import detector
from hone.rewards.sentences import count_capital_words, split_sentences
from hone.rewards.verifiers import VERIFIERS, completion_with, verify
from hone.types import HoneError, Problem, Verdict

DATA = Path(__file__).parents[3].parent / "shared" / "data" / "ifeval.jsonl"
STRICT, LOOSE, NOT = (True, True), (False, True), (False, False)


def reference(*instructions: tuple[str, dict[str, Any]]) -> str:
    names, arguments = zip(*instructions, strict=True)
    return json.dumps({"instruction_id_list": names, "kwargs": arguments})


def problem(*instructions: tuple[str, dict[str, Any]]) -> Problem:
    return Problem(
        id="ifeval/1", task="ifeval", messages=(), answer=reference(*instructions), verifier="instructions",
        extract="summary",
    )  # fmt: skip


def judged(kind: str, arguments: dict[str, Any], reply: str) -> tuple[bool, bool]:
    [found] = followed(reference((kind, arguments)), reply)
    assert found.instruction == kind
    return found.strict, found.loose


NEEDS_NO_EXTRA: dict[str, list[tuple[dict[str, Any], str, tuple[bool, bool]]]] = {
    "keywords:existence": [
        ({"keywords": ["rose", "Tulip"]}, "Roses and tulips.", STRICT),  # inside words, in any case
        ({"keywords": ["rose", "tulip"]}, "Roses alone.", NOT),
        ({"keywords": ["a rose"]}, "A *rose*", LOOSE),  # without the asterisks
        ({"keywords": ["r.se"]}, "rose", NOT),  # text, no pattern
    ],
    "keywords:frequency": [
        ({"keyword": "cat", "frequency": 2, "relation": "at least"}, "Cat, concatenate.", STRICT),
        ({"keyword": "cat", "frequency": 2, "relation": "at least"}, "One cat.", NOT),
        ({"keyword": "cat", "frequency": 2, "relation": "less than"}, "One cat.", STRICT),
        ({"keyword": "cat", "frequency": 2, "relation": "less than"}, "A cat.\nTwo cats.", LOOSE),
        ({"keyword": " cat ", "frequency": 1, "relation": "at least"}, "cats", STRICT),  # its spaces do not count
    ],
    "keywords:forbidden_words": [
        ({"forbidden_words": ["rain"]}, "Trains are late.", STRICT),  # whole words alone are forbidden
        ({"forbidden_words": ["rain", "snow"]}, "SNOW!", NOT),
        ({"forbidden_words": ["rain"]}, "About rain:\nIt is wet.", LOOSE),
    ],
    "keywords:letter_frequency": [
        ({"letter": "q", "let_frequency": 2, "let_relation": "at least"}, "Q and q", STRICT),
        ({"letter": "Q", "let_frequency": 2, "let_relation": "at least"}, "q", NOT),
        ({"letter": "q", "let_frequency": 1, "let_relation": "less than"}, "none", STRICT),
        ({"letter": "q", "let_frequency": 1, "let_relation": "less than"}, "none\nquite", LOOSE),
        ({"letter": "#", "let_frequency": 2, "let_relation": "at least"}, "#a #b", STRICT),
        ({"letter": "#", "let_frequency": 2, "let_relation": "at least"}, "#a", NOT),
    ],
    "length_constraints:number_words": [
        ({"num_words": 3, "relation": "at least"}, "one two-three", STRICT),  # a hyphen parts words
        ({"num_words": 3, "relation": "at least"}, "one two", NOT),
        ({"num_words": 3, "relation": "less than"}, "one two", STRICT),
        ({"num_words": 3, "relation": "less than"}, "one two three", NOT),
        ({"num_words": 3, "relation": "less than"}, "Here it is:\none two", LOOSE),
    ],
    "length_constraints:number_sentences": [
        ({"num_sentences": 2, "relation": "at least"}, "One. Two.", STRICT),
        ({"num_sentences": 2, "relation": "at least"}, "One\nand half of it.", NOT),
        ({"num_sentences": 2, "relation": "less than"}, "Mr. Hone spoke.", STRICT),
        ({"num_sentences": 2, "relation": "less than"}, "One. Two.", NOT),
        ({"num_sentences": 2, "relation": "less than"}, "Sure!\nOne.", LOOSE),
    ],
    "length_constraints:number_paragraphs": [
        ({"num_paragraphs": 2}, "one\n***\ntwo", STRICT),
        ({"num_paragraphs": 2}, "***one***two***", STRICT),  # blank ones at the ends are none
        ({"num_paragraphs": 2}, "one\n\ntwo", NOT),
        ({"num_paragraphs": 2}, "one***\n***two", NOT),  # a blank one in the midst
        ({"num_paragraphs": 1}, "one\n***\ntwo", LOOSE),
    ],
    "length_constraints:nth_paragraph_first_word": [
        ({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Two"}, 'one\n\n"two, and', STRICT),
        ({"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "two"}, "one\n\ntwo", NOT),
        ({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "two"}, "one\n\ntwo\n\nthree", LOOSE),
        ({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "two"}, "one\n\ntwo\n\nthree\n\nfour", NOT),
        (
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "two"},
            "one\n\n\n\ntwo",
            NOT,
        ),  # a blank one is second
        ({"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "one"}, "Sure:\none\n", LOOSE),
        ({"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "one"}, "one-two", NOT),
    ],
    "detectable_content:number_placeholders": [
        ({"num_placeholders": 2}, "[name] at [street [or road]]", STRICT),
        ({"num_placeholders": 2}, "[name] at [\nroad]", NOT),  # within a line
        ({"num_placeholders": 1}, "[na*me*]", STRICT),
        ({"num_placeholders": 0}, "none", STRICT),
    ],
    "detectable_content:postscript": [
        ({"postscript_marker": "P.S."}, "Bye. p. s. Write soon.", STRICT),
        ({"postscript_marker": "P.S."}, "Bye. PS: Write soon.", NOT),
        ({"postscript_marker": "P.P.S"}, "Bye.\nP. P. S write", STRICT),
        ({"postscript_marker": "P.P.S"}, "Bye.\nP.S. write", NOT),
        ({"postscript_marker": "P.S."}, "Bye.\n**P.**S. Write", LOOSE),
        ({"postscript_marker": "NB"}, "nb: late", STRICT),
        ({"postscript_marker": "N.B"}, "nob", NOT),  # text, no pattern
    ],
    "detectable_format:number_bullet_lists": [
        ({"num_bullets": 2}, "* one\n  - two", STRICT),
        ({"num_bullets": 2}, "* one\n- two\n-three", LOOSE),
        ({"num_bullets": 2}, "* one", NOT),
        ({"num_bullets": 1}, "** bold **\n* one", STRICT),
        ({"num_bullets": 1}, "*\n* one", STRICT),  # an asterisk alone takes the next line with it
        ({"num_bullets": 1}, "* one\n*", STRICT),
        ({"num_bullets": 1}, "- a list:\n* one", LOOSE),
    ],
    "detectable_format:constrained_response": [
        ({}, " I think that My answer is no. ", STRICT),
        ({}, "My answer is no", NOT),
        ({}, "my answer is maybe.", NOT),
        ({}, "My answer is **yes**.", LOOSE),
    ],
    "detectable_format:number_highlighted_sections": [
        ({"num_highlights": 2}, "*one* and *two*", STRICT),
        ({"num_highlights": 2}, "**one**", NOT),  # two blank ones, and one that is bold
        ({"num_highlights": 1}, "**one**", STRICT),
        ({"num_highlights": 2}, "*one* and * *", NOT),
        ({"num_highlights": 1}, "*one\n*two", NOT),  # within a line
    ],
    "detectable_format:multiple_sections": [
        ({"section_spliter": "Section", "num_sections": 2}, "Section 1\na\nSection 2\nb", STRICT),
        ({"section_spliter": "Section", "num_sections": 2}, "Section 1\na\nSECTION 2\nb", NOT),
        ({"section_spliter": "Section", "num_sections": 2}, "Section1 Section2", STRICT),
        ({"section_spliter": "Section", "num_sections": 2}, "Section One Section Two", NOT),
        ({"section_spliter": "Section", "num_sections": 1}, "Section *1*", LOOSE),
    ],
    "detectable_format:json_format": [
        ({}, '```json\n{"a": [1, 2]}\n```', STRICT),
        ({}, '{"a": 1', NOT),
        ({}, '{"a": 1} as asked', NOT),
        ({}, 'Here it is:\n{"a": 1}', LOOSE),
        ({}, "[" * 100_000 + "]" * 100_000, NOT),  # deeper than the reader goes
    ],
    "detectable_format:title": [
        ({}, "<<Spring>>\nIt rains.", STRICT),
        ({}, "<<  >>", NOT),
        ({}, "<Spring>", NOT),
        ({}, "<<Spring\n>>", NOT),  # within a line
        ({}, "<*<Spring>*>", LOOSE),
    ],
    "combination:two_responses": [
        ({}, "one\n******\ntwo", STRICT),
        ({}, "******one******two******", STRICT),
        ({}, "one\n******\n one ", NOT),  # the same one
        ({}, "one ****** two ****** three", NOT),
        ({}, "one\n******\ntwo\n******\nthree", LOOSE),  # without the last line
        ({}, "one\n*****\ntwo", NOT),
        ({}, "******\n******\none\n******\ntwo", LOOSE),  # the blank one in the midst goes with the first line
    ],
    "combination:repeat_prompt": [
        ({"prompt_to_repeat": "Tell a joke. "}, " tell a joke. Knock, knock!", STRICT),
        ({"prompt_to_repeat": "Tell a joke."}, "Tell me a joke. Knock, knock!", NOT),
        ({"prompt_to_repeat": "Tell a joke."}, "Sure!\nTell a joke. Knock, knock!", LOOSE),
    ],
    "startend:end_checker": [
        ({"end_phrase": "That is all. "}, 'Bye. THAT IS ALL."\n', STRICT),
        ({"end_phrase": "That is all."}, "Bye. That is all. Really.", NOT),
        ({"end_phrase": "That is all."}, "Bye. That is all.\nReally.", LOOSE),
    ],
    "startend:quotation": [
        ({}, ' "All of it." ', STRICT),
        ({}, '"', NOT),
        ({}, '"All of it".', NOT),
        ({}, 'Here:\n"All of it."', LOOSE),
    ],
    "change_case:capital_word_frequency": [
        ({"capital_frequency": 2, "capital_relation": "at least"}, "NASA is HIGH-END", STRICT),
        ({"capital_frequency": 3, "capital_relation": "at least"}, "NASA is HIGH-END", NOT),
        ({"capital_frequency": 2, "capital_relation": "less than"}, "NASA is High", STRICT),
        ({"capital_frequency": 2, "capital_relation": "less than"}, "I DO\nknow", LOOSE),
    ],
    "punctuation:no_comma": [
        ({}, "None at all; 1.000", STRICT),
        ({}, "1,000", NOT),
        ({}, "Sure, here:\nnone", LOOSE),
    ],
}
NEEDS_PY3LANGID: dict[str, list[tuple[dict[str, Any], str, tuple[bool, bool]]]] = {
    "language:response_language": [
        ({"language": "de"}, "Das ist ein ganz gewöhnlicher Satz in deutscher Sprache.", STRICT),
        ({"language": "de"}, "This is quite an ordinary sentence in the English language.", NOT),
        ({"language": "mr"}, "मला वाटते की हे पुस्तक खूप चांगले आहे आणि तुम्ही ते वाचायला हवे.", STRICT),
        ({"language": "hi"}, "मला वाटते की हे पुस्तक खूप चांगले आहे आणि तुम्ही ते वाचायला हवे.", NOT),
        ({"language": "ur"}, "12 + 30 = 42 https://example.org/page", STRICT),  # nothing to tell by
        (
            {"language": "fr"},
            "This is the answer that you have asked me to write in French, and here it stands at last:\nLe chat dort.",
            LOOSE,
        ),
    ],
    "change_case:english_capital": [
        ({}, "THE CAT SLEEPS ON THE MAT ALL DAY.", STRICT),
        ({}, "THE CAT SLEEPS ON THE MAT ALL day.", NOT),
        ({}, "DIE KATZE SCHLÄFT DEN GANZEN TAG AUF DER MATTE.", NOT),
        ({}, "Sure:\nTHE CAT SLEEPS ON THE MAT ALL DAY.", LOOSE),
        ({}, "12 + 30 = 42", NOT),  # no letter, so no capitals
    ],
    "change_case:english_lowercase": [
        ({}, "the cat sleeps on the mat all day.", STRICT),
        ({}, "the cat sleeps on the mat all Day.", NOT),
        ({}, "die katze schläft den ganzen tag auf der matte.", NOT),
        ({}, "the cat sleeps on the mat all day.\nBye", LOOSE),
    ],
}


def cases(table: dict[str, list[tuple[dict[str, Any], str, tuple[bool, bool]]]]) -> list[Any]:
    return [pytest.param(kind, *case, id=f"{kind}-{n}") for kind, them in table.items() for n, case in enumerate(them)]


@pytest.mark.parametrize(("kind", "arguments", "reply", "found"), cases(NEEDS_NO_EXTRA))
def test_a_kind(kind: str, arguments: dict[str, Any], reply: str, found: tuple[bool, bool]) -> None:
    assert judged(kind, arguments, reply) == found


@pytest.mark.parametrize(("kind", "arguments", "reply", "found"), cases(NEEDS_PY3LANGID))
def test_a_kind_about_language(kind: str, arguments: dict[str, Any], reply: str, found: tuple[bool, bool]) -> None:
    pytest.importorskip("py3langid", reason="the extra [language] is not installed")
    assert judged(kind, arguments, reply) == found


def test_every_kind_has_cases_on_both_sides() -> None:
    table = NEEDS_NO_EXTRA | NEEDS_PY3LANGID
    assert table.keys() == KINDS.keys()
    assert len(KINDS) == 25
    for kind, them in table.items():
        assert {STRICT, NOT} <= {found for _, _, found in them} | ({NOT} if kind.endswith("placeholders") else set())
    # Neither asterisks nor a line taken away give what these want more of.
    assert {kind for kind, them in table.items() if LOOSE not in {found for _, _, found in them}} == {
        "detectable_content:number_placeholders",
        "detectable_format:number_highlighted_sections",
    }


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two? Three! Four", ["One.", "Two?", "Three!", "Four"]),
        ("No end of a line\nis one", ["No end of a line\nis one"]),
        ('"Stop!" he said. (Really.) He did.', ['"Stop!"', "he said.", "(Really.)", "He did."]),
        ("“Stop.” He did.", ["“Stop.”", "He did."]),
        ("Dr. Brown and Mrs. J. Smith met at 5 p.m. in the U.S. Capitol.", None),
        ("It was 5 p.m. She left.", None),  # she may be the name of something
        ("It was 5 p.m. However, she stayed.", ["It was 5 p.m.", "However, she stayed."]),
        ("It costs 3.50 dollars or 1,000.00 yen.", None),
        ("Well... maybe. Wait... However it is", ["Well... maybe.", "Wait...", "However it is"]),
        ("1. Eggs\n2. milk", ["1.", "Eggs\n2. milk"]),
        ("Hm!? Yes?!", ["Hm!?", "Yes?", "!"]),  # nothing follows the last sign, so no sentence ends there
        ("**Note.** Mind it.", ["**Note.", "** Mind it."]),  # an asterisk closes nothing
        ("See www.example.org. Then e.g. this", ["See www.example.org.", "Then e.g.", "this"]),
        ("You solve for x. We know y. J. Doe", ["You solve for x.", "We know y. J. Doe"]),
        ("  \n ", []),
    ],
)
def test_sentences(text: str, sentences: list[str] | None) -> None:
    assert split_sentences(text) == ([text] if sentences is None else sentences)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("I AM Here", 2),
        ("DON'T", 2),  # DO N'T
        ("YOU DON'T. Don't", 3),
        ("IT'S DOGS' ''TIS CANNOT", 6),  # IT 'S DOGS TIS CAN NOT
        ("DON’T", 2),
        ("A.B. U.S. 3D 42 É", 4),
        ("A:B C,D 1:2 A:1", 5),
        ("'QUOTED' X='Y' \"Z\"", 4),
        ("GONNA WANNA", 4),
        ("none Here", 0),
    ],
)
def test_capital_words(text: str, number: int) -> None:
    assert count_capital_words(text) == number


def test_a_reply_is_judged_by_all_its_instructions() -> None:
    asked = problem(
        ("punctuation:no_comma", {}),
        ("startend:quotation", {"num_words": None}),
        ("length_constraints:number_words", {"num_words": 2, "relation": "at least", "language": None}),
    )
    assert verify(asked, '<think>one, two</think>\n"All right."') == (Verdict.RIGHT, "follows 3 of 3", 1.0)
    assert verify(asked, '"Right, then."') == (
        Verdict.WRONG,
        "does not follow punctuation:no_comma (1 of 3 missed)",
        pytest.approx(2 / 3),
    )
    assert verify(asked, "All right") == (
        Verdict.WRONG,
        "does not follow startend:quotation (1 of 3 missed)",
        pytest.approx(2 / 3),
    )
    assert verify(asked, "<think>never closed").verdict is Verdict.WRONG
    assert answer_key(asked, '"All right."') is None
    VERIFIERS["instructions"].check_reference(asked)
    for answer in VERIFIERS["instructions"].wrong_answers(asked):
        assert verify(asked, completion_with(asked, answer)).verdict is Verdict.WRONG


def test_a_blank_reply_follows_nothing() -> None:
    asked = reference(("punctuation:no_comma", {}), ("keywords:forbidden_words", {"forbidden_words": ["a"]}))
    for reply in ("", " \n\n "):
        assert followed(asked, reply) == [
            Followed("punctuation:no_comma", False, False),
            Followed("keywords:forbidden_words", False, False),
        ]
    assert not followed(asked, "a, b\na, b")[0].loose  # and so does none that is blank without a line


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("no comma", "the instructions are no JSON"),
        ("[" * 100_000, "the instructions are no JSON"),
        ("[]", "no object with lists"),
        ('{"instruction_id_list": [], "kwargs": []}', "no object with lists"),
        ('{"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}', "of one length"),
        (reference(("punctuation:no_commas", {})), "no instruction is called 'punctuation:no_commas'; there are keyw"),
        ('{"instruction_id_list": [["a"]], "kwargs": [{}]}', "no instruction is called"),
        ('{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [3]}', "kwargs of punctuation:no_comma are no"),
        (reference(("punctuation:no_comma", {"number": 3})), "takes nothing, and is given number"),
        (reference(("keywords:existence", {"keywords": None})), "takes keywords, and is given nothing"),
        (reference(("keywords:existence", {"keywords": "rose"})), "must be a list of texts"),
        (reference(("keywords:existence", {"keywords": ["x" * 201]})), "1 to 200 characters"),
        (reference(("keywords:existence", {"keywords": []})), "must be a list"),
        (reference(("startend:end_checker", {"end_phrase": " "})), "must be text that is not blank"),
        (reference(("detectable_format:number_bullet_lists", {"num_bullets": -1})), "a whole number from 0 on"),
        (reference(("detectable_format:number_bullet_lists", {"num_bullets": True})), "and is True"),
        (reference(("detectable_format:number_bullet_lists", {"num_bullets": "3"})), "and is '3'"),
        (
            reference(("length_constraints:number_words", {"num_words": 3, "relation": "at most"})),
            "relation of length_constraints:number_words must be 'less than' or 'at least', and is 'at most'",
        ),
        (
            reference(("length_constraints:number_words", {"num_words": 3, "relation": ["at least"]})),
            "must be 'less than' or",
        ),
        (
            reference(("keywords:letter_frequency", {"letter": "ab", "let_frequency": 1, "let_relation": "at least"})),
            "one character",
        ),
        (reference(("language:response_language", {"language": "xx"})), "must be one of af ar bg"),
        (
            reference(
                (
                    "length_constraints:nth_paragraph_first_word",
                    {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"},
                )
            ),
            "greater than num_paragraphs",
        ),
    ],
)
def test_a_reference_that_cannot_be_read(answer: str, why: str) -> None:
    asked = Problem(
        id="ifeval/1", task="ifeval", messages=(), answer=answer, verifier="instructions", extract="summary"
    )
    with pytest.raises(HoneError, match=r"^problem ifeval/1: ") as raised:
        VERIFIERS["instructions"].check_reference(asked)
    assert why in str(raised.value)
    verdict, said, credit = verify(asked, "a reply")
    assert (verdict, credit) == (Verdict.UNSCORABLE, 0.0)
    assert said.startswith("gold: ")
    assert why in said


def test_without_the_extra_language_the_mend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    detector.cache_clear()
    lowercase = problem(("change_case:english_lowercase", {}))
    assert needs_language(lowercase.answer)
    with pytest.raises(HoneError, match=r"problem ifeval/1: .* need py3langid: pip install 'hone-r1\[language\]'"):
        VERIFIERS["instructions"].check_reference(lowercase)
    with pytest.raises(HoneError, match="need py3langid"):
        verify(lowercase, "all small")
    commas = problem(("punctuation:no_comma", {}))
    assert not needs_language(commas.answer)
    VERIFIERS["instructions"].check_reference(commas)
    assert verify(commas, "none").verdict is Verdict.RIGHT


def test_languages_are_told_apart() -> None:
    pytest.importorskip("py3langid", reason="the extra [language] is not installed")
    texts = {
        "kn": "ಇಂದು ಬೆಳಿಗ್ಗೆ ಮಳೆ ಬರುತ್ತಿದೆ ಮತ್ತು ರಸ್ತೆಗಳು ಒದ್ದೆಯಾಗಿವೆ.",
        "fa": "امروز صبح باران می‌بارد و خیابان‌ها خیس هستند.",
        "sw": "Leo asubuhi mvua inanyesha na barabara zimelowa maji.",
        "pt": "Hoje de manhã está chovendo e as ruas estão molhadas.",
        "zh": "今天早上在下雨，街道都湿了。",
        "en": "It is raining this morning, and the streets are wet.",
    }
    assert {language_of(text) for text in texts.values()} == texts.keys()
    assert {language: language_of(text) for language, text in texts.items()} == {name: name for name in texts}
    assert language_of(texts["en"].upper()) == "en"
    assert language_of("42 https://example.org/seite-in-deutscher-sprache") is None


@pytest.mark.skipif(not DATA.is_file(), reason="shared/data beside the project, with IFEval's prompts, is absent")
def test_the_published_prompts_can_be_read() -> None:
    rows = [json.loads(line) for line in DATA.read_text("utf-8").splitlines()]
    answers = [json.dumps({key: row[key] for key in ("instruction_id_list", "kwargs")}) for row in rows]
    read = [followed(answer, "") for answer in answers]
    assert len(rows) >= 540
    assert sum(map(len, read)) == sum(len(row["instruction_id_list"]) for row in rows)
    assert {found.instruction for each in read for found in each} == KINDS.keys()


UNITS = (
    *("[", "]", "<<", ">", "*", "**", "***", "* \n", "\n", " ", "- ", '"', "'", ".", ". ", "...", "A.", "Dr. ", 'x."'),
    *("X'S'", "--", "p. ", "p.\n", "Section ", "1", "\\", "{", ",", "a,", "1.", "“", "www.", "http://", "-a", "WANNA"),
)


@pytest.mark.parametrize("unit", UNITS)
def test_long_replies_take_no_longer_than_their_length(unit: str) -> None:
    reply = unit * (50_000 // len(unit)) + "x"
    words = {"keyword": "aaaaaaaaab", "keywords": ["a b"], "forbidden_words": ["*"], "section_spliter": "Section"}
    texts = {"first_word": "a", "postscript_marker": "P.P.S", "letter": "a", "prompt_to_repeat": "a", "end_phrase": "a"}
    relations = dict.fromkeys(("relation", "let_relation", "capital_relation"), "at least")
    arguments = words | texts | relations
    start = time.process_time()
    for kind in KINDS.values():
        if not kind.reads_language:
            kind.follows(reply, **{name: arguments.get(name, 1) for name in kind.arguments})
    assert time.process_time() - start < 5  # 0.5 s at most; quadratic time would be minutes
