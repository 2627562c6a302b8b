"""The leaderboard: what it says of evaluations, what it warns of, what it leaves out, what it must survive."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import output, problem, write_evaluation
from pages import HOSTILE, Page

from hone.report.browse import MAX_OUTPUTS, MAX_PROBLEMS, choose, disagree, thoughts
from hone.report.evaluations import Place, read_evaluations, read_outputs, read_places
from hone.report.leaderboard import write_leaderboard
from hone.types import HoneError

RIGHT, WRONG = output(), output("wrong")


def page_of(*folders: Path) -> Page:
    return Page(write_leaderboard(folders, folders[0].parent / "page.html"))


def section(page: Page, name: str) -> str:
    """Return the markup of one section."""
    start = page.source.index(f'<section id="{name}">')
    return page.source[start : page.source.index("</section>", start)]


def scored(pass_at_1: float, low: float, high: float, **more: Any) -> dict[str, Any]:
    return {"pass_at_1": pass_at_1, "pass_at_1_ci95": [low, high]} | more


def places(**codes: str) -> dict[str, list[Place]]:
    return {name: [Place(row=i, index=i, code=code) for i, code in enumerate(found)] for name, found in codes.items()}


def test_models_by_benchmark(tmp_path: Path) -> None:
    outputs = {"p": [RIGHT, WRONG]}
    folders = [
        write_evaluation(tmp_path / "a", outputs, model="small", scores=scored(0.412, 0.371, 0.453, cons_at_k=0.518)),
        write_evaluation(tmp_path / "b", outputs, model="large", scores=scored(0.734, 0.695, 0.773, cons_at_k=None)),
        write_evaluation(tmp_path / "c", outputs, model="small", benchmark="gsm8k", scores=scored(0.25, 0.2, 0.3)),
    ]
    page = page_of(*folders)
    table = section(page, "results").split("</table>")[0]
    for figure in ("0.412", "0.371–0.453", "0.518", "0.734", "0.695–0.773", "gsm8k", "0.250", "0.200–0.300"):
        assert figure in table, figure
    assert "cons@2" in table
    assert page.data["browsers"][0]["models"][1]["verdicts"] == ["rw"]


@pytest.mark.parametrize(
    ("intervals", "bold"),
    [(((0.3, 0.39), (0.4, 0.6)), 1), (((0.3, 0.41), (0.4, 0.6)), 0), (((0.4, 0.6),), 0)],
)
def test_the_best_is_bold_where_its_interval_excludes_the_others(
    tmp_path: Path, intervals: tuple[tuple[float, float], ...], bold: int
) -> None:
    folders = [
        write_evaluation(
            tmp_path / f"{n}", {"p": [RIGHT]}, model=f"m{n}", scores=scored((low + high) / 2, low, high)
        )
        for n, (low, high) in enumerate(intervals)
    ]  # fmt: skip
    assert section(page_of(*folders), "results").split("</table>")[0].count('best"') == bold


def test_other_verifiers_and_problems_spoil_a_comparison(tmp_path: Path) -> None:
    low, high = scored(0.1, 0.05, 0.15), scored(0.9, 0.85, 0.95)
    a = write_evaluation(tmp_path / "a", {"p": [RIGHT], "q": [RIGHT]}, model="a", scores=low)
    b = write_evaluation(tmp_path / "b", {"p": [RIGHT], "r": [RIGHT]}, model="b", scores=high)
    c = write_evaluation(
        tmp_path / "c", {"p": [RIGHT], "q": [RIGHT]}, model="c", scores=high | {"verifier": "hone 0.2.0: math"}
    )
    text = page_of(a, b).text
    assert "the problems differ: 2 (a), 2 (b); 1 of them are everyone's" in text
    page = page_of(a, c)
    assert "verifier: hone 0.1.0: math, boxed (a); hone 0.2.0: math (c)" in page.text
    assert 'best"' not in section(page, "results")


def test_other_problems_under_the_same_ids_spoil_a_comparison(tmp_path: Path) -> None:
    low, high = scored(0.1, 0.05, 0.15), scored(0.9, 0.85, 0.95)
    folders = [
        write_evaluation(tmp_path / name, {"p": [RIGHT]}, model=name, scores=figures, settings={"problems_hash": name})
        for name, figures in (("a", low), ("b", high))
    ]
    page = page_of(*folders)
    assert "problems hash: a (a); b (b)" in page.text
    assert 'best"' not in section(page, "results")


def test_the_k_of_pass_at_k_is_that_of_the_curve(tmp_path: Path) -> None:
    """Where an output is unscorable, pass@k ends below the number of samples; cons@k does not."""
    curve = [{"k": k, "pass_at_k": 0.5, "pass_at_k_ci95": None} for k in (1, 2)]
    folder = write_evaluation(tmp_path / "a", {"p": [RIGHT, WRONG, RIGHT]}, scores={"pass_at_k_curve": curve})
    shown = section(page_of(folder), "results")
    assert ">pass@2<" in shown
    assert ">cons@3<" in shown
    assert "pass@3" not in shown


def test_settings_that_differ_are_named(tmp_path: Path) -> None:
    settings = {"decoding": {"temperature": 0.0, "top_p": 0.95, "max_tokens": 32768, "template": "chat"}, "seed": 7}
    folders = [
        write_evaluation(tmp_path / "a", {"p": [RIGHT]}, model="a"),
        write_evaluation(tmp_path / "b", {"p": [RIGHT]}, model="b", settings=settings | {"model_hash": "feed"}),
    ]
    page = page_of(*folders)
    warnings = [attrs for tag, attrs in page.tags if tag == "p" and (attrs.get("class") or "").startswith("card doubt")]
    assert [attrs["class"] for attrs in warnings] == ["card doubt"]  # not of seed and hash, and it spoils nothing
    assert "temperature: 0.6 (a); 0.0 (b)" in page.text
    assert section(page, "settings").count('class="differs"') == 1
    assert "zero-shot, 64 samples" in page.text
    same = page_of(folders[0])
    assert "differ" not in section(same, "settings")


def test_one_model_measured_twice_is_told_apart_by_its_settings(tmp_path: Path) -> None:
    greedy = {"decoding": {"temperature": 0.0, "top_p": 0.95, "max_tokens": 32768, "template": "chat"}}
    folders = [
        write_evaluation(tmp_path / "a", {"p": [RIGHT]}),
        write_evaluation(tmp_path / "b", {"p": [RIGHT]}, settings=greedy),
    ]
    labels = [model["label"] for model in page_of(*folders).data["browsers"][0]["models"]]
    assert labels == ["tiny, temperature 0.6", "tiny, temperature 0.0"]


def test_charts_hold_what_was_measured(tmp_path: Path) -> None:
    curve = [{"k": k, "pass_at_k": p, "pass_at_k_ci95": [p - 0.1, p + 0.1]} for k, p in ((1, 0.5), (2, 0.75))]
    length = {"completion_length_mean": None, "completion_length_mean_ci95": None}
    folders = [
        write_evaluation(tmp_path / "a", {"p": [RIGHT, WRONG]}, model="a", scores={"pass_at_k_curve": curve}),
        write_evaluation(tmp_path / "b", {"p": [RIGHT, WRONG]}, model="b", scores=length),
    ]
    lengths, curves = page_of(*folders).data["charts"]
    (point,) = lengths["curves"]  # of the other model no length is known
    assert (point["name"], point["x"], point["y"]) == ("a", [120.0], [0.5])
    assert (point["low"], point["high"], point["low_x"], point["high_x"]) == ([0.45], [0.55], [110.0], [130.0])
    (line,) = curves["curves"]
    assert (line["x"], line["y"], line["low"], line["high"]) == ([1, 2], [0.5, 0.75], [0.4, 0.65], [0.6, 0.85])
    assert curves["ticks"] == [1, 2]


def test_more_models_than_colours_keep_apart_by_their_symbols(tmp_path: Path) -> None:
    folders = [write_evaluation(tmp_path / f"{n}", {"p": [RIGHT]}, model=f"m{n}") for n in range(9)]
    looks = [(curve["colour"], curve["symbol"]) for curve in page_of(*folders).data["charts"][0]["curves"]]
    assert len(set(looks)) == 9


def test_subjects_and_levels(tmp_path: Path) -> None:
    def group(value: float) -> dict[str, Any]:
        return {"num_problems": 3, "pass_at_1": value, "pass_at_1_ci95": [value - 0.1, value + 0.1]}

    groups = {"subject": {"Algebra": group(0.61)}, "level": {"10": group(0.2), "2": group(0.4)}}
    folders = [
        write_evaluation(tmp_path / "a", {"p": [RIGHT]}, model="a", scores={"groups": groups}),
        write_evaluation(tmp_path / "b", {"p": [RIGHT]}, model="b"),
    ]
    shown = section(page_of(*folders), "groups")
    assert "0.510–0.710" in shown
    assert shown.index('data-value="2"') < shown.index('data-value="10"')
    assert 'id="groups"' not in page_of(folders[1]).source


def test_what_is_missing_is_a_dash(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "a", {"p": [RIGHT]})
    scores = json.loads((folder / "scores.json").read_text())
    scores |= {"cons_at_k": float("nan"), "completion_length_mean": None, "pass_at_1_ci95": None, "groups": None}
    (folder / "scores.json").write_text(json.dumps(scores))
    page = page_of(folder)
    assert "–" in section(page, "results")
    assert ">nan" not in section(page, "results")


def test_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    page = page_of(write_evaluation(tmp_path / "a", {"p": [RIGHT, WRONG]}))
    assert not [attrs for _, attrs in page.tags if {"src", "srcset", "data", "poster"} & set(attrs)]
    assert not any(tag in ("link", "img", "iframe", "object", "embed", "base") for tag, _ in page.tags)
    (policy,) = [attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert (policy or "").startswith("default-src 'none'")
    links = {attrs["href"] or "" for _, attrs in page.tags if "href" in attrs}
    assert {link[1:] for link in links if link.startswith("#")} <= {attrs.get("id") for _, attrs in page.tags}
    assert section(page, "quoted").count("https://") == 2 * len([x for x in page.tags if x[1].get("rel")])


def test_hostile_text_stays_inert(tmp_path: Path) -> None:
    clean = page_of(write_evaluation(tmp_path / "a", {"p": [RIGHT]}))
    nasty = HOSTILE + "\u2028\u2029]]>\ud800&lt;"
    asked = problem(nasty, question=nasty, answer=nasty, tags={"subject": nasty})
    folder = write_evaluation(
        tmp_path / "b",
        {nasty.replace("\ud800", ""): [output(completion=nasty.replace("\ud800", ""), extracted=nasty, why=nasty)]},
        model=HOSTILE, benchmark=HOSTILE, problems=[asked | {"id": nasty.replace("\ud800", "")}],
        settings={"prompt": HOSTILE, "data": HOSTILE, "protocol": HOSTILE}, scores={"verifier": HOSTILE},
    )  # fmt: skip
    page = page_of(folder)
    count = Counter((tag, attrs.get("class")) for tag, attrs in page.tags)
    assert count == Counter((tag, attrs.get("class")) for tag, attrs in clean.tags)
    assert "alert(1)</script>" not in page.source
    assert not {"\u2028", "\u2029"} & set(page.embedded)
    browser = page.data["browsers"][0]
    (shown,) = browser["models"][0]["outputs"]["0"]
    assert shown["text"] == [{"part": "outside", "runs": [nasty.replace("\ud800", "")]}]
    assert shown["why"] == nasty.replace("\ud800", "?")  # half a character cannot be written
    assert browser["questions"]["0"]["question"] == nasty.replace("\ud800", "?")


def test_a_large_evaluation_makes_no_large_page(tmp_path: Path) -> None:
    """All verdicts are there, of the completions a selection that is the same each time; the page says so."""
    long = output(completion="<think>" + "<" * 25_000 + "</think>" + "5" * 300)  # six bytes a character on the page
    outputs = {f"p{n}": [*[long] * 4, *[WRONG] * 6] for n in range(120)}
    folder = write_evaluation(tmp_path / "a", outputs, row_group_size=100)
    bare = write_evaluation(tmp_path / "b", {"p": [RIGHT]})
    page, small = page_of(folder), page_of(bare)
    assert len(page.source) - len(small.source) < 8_500_000
    assert page.source == page_of(folder).source
    browser = page.data["browsers"][0]
    assert browser["models"][0]["verdicts"] == ["rrrrwwwwww"] * 120
    assert len(browser["questions"]) == len(browser["models"][0]["outputs"]) == MAX_PROBLEMS
    shown = [one for found in browser["models"][0]["outputs"].values() for one in found]
    assert len(shown) == MAX_PROBLEMS * MAX_OUTPUTS
    cut = [one["text"] for one in shown if one["cut"]]
    assert len(cut) == MAX_PROBLEMS * (MAX_OUTPUTS - 1)  # the first of each verdict is among those shown
    for think, answer in cut:
        assert answer["runs"] == ["5" * 300]  # it is the thinking that is cut
        assert 7_000 < think["runs"][0].count("<") < 8_000  # at the next length, for at 20,000 all were 14 MB
    assert "160 of 1,200 outputs are here with their text" in " ".join(page.text.split())
    assert "120 of them are" in page.text


def test_outputs_are_read_where_they_stand(tmp_path: Path) -> None:
    outputs = {f"p{n}": [output(completion=f"{n}:{i}") for i in range(3)] for n in range(50)}
    folder = write_evaluation(tmp_path / "a", outputs, row_group_size=70)
    (evaluation,) = read_evaluations([folder])
    found = read_places(evaluation)
    rows = [found["p0"][2].row, found["p23"][1].row, found["p49"][2].row]
    assert rows == [2, 70, 149]
    assert [row["completion"] for row in read_outputs(evaluation, rows)] == ["0:2", "23:1", "49:2"]


def test_problems_are_chosen_by_lot_but_odd_ones_are_among_them() -> None:
    ids = [f"p{n}" for n in range(300)]
    codes = dict.fromkeys(ids, "rr") | {"p7": "ru", "p8": "rR", "p9": "ww", "p10": "wr"}
    chosen = choose(ids, [places(**dict.fromkeys(ids, "rr")), places(**codes)], 20)
    assert {"p7", "p8", "p9", "p10"} <= set(chosen)
    assert len(chosen) == 20
    assert chosen == sorted(chosen, key=ids.index)
    assert choose(ids[:3], [places(p0="r")], 20) == ids[:3]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (["rr", "ww"], True), (["rR", "rw", "ww"], True), (["rr", "rrw"], False), (["rw", "ww"], False),
        (["rw"], True), (["rR"], False), (["W"], False), (["", "rw"], True), ([], False),
    ],
)  # fmt: skip
def test_disagreement(codes: list[str], expected: bool) -> None:
    """Half is not mostly."""
    assert disagree(codes) is expected


@pytest.mark.parametrize(
    ("prompt", "completion", "expected"),
    [
        ("", "<think>a</think>b", [("think", "<think>a</think>"), ("answer", "b")]),
        ("<think>\n", "a</think>b", [("think", "a</think>"), ("answer", "b")]),
        ("<think>\n", "a", [("think", "a")]),
        ("", " <think>a", [("think", " <think>a")]),
        ("", "b", [("outside", "b")]),
        ("", "a</think>b</think>c", [("think", "a</think>"), ("answer", "b</think>c")]),
        ("", "", []),
    ],
)
def test_thinking_is_set_apart(prompt: str, completion: str, expected: list[tuple[str, str]]) -> None:
    assert [(part["part"], *part["runs"]) for part in thoughts(prompt, completion, 100)] == expected


def test_a_long_text_is_cut_in_both_parts() -> None:
    think, rest = thoughts("", "x" * 5000 + "</think>" + "y" * 5000, 1000)
    assert think["runs"][0].count("x") + rest["runs"][0].count("y") <= 1000
    assert "characters left out" in think["runs"][0]
    assert "characters left out" in rest["runs"][0]


def test_folders_that_are_none(tmp_path: Path) -> None:
    good = write_evaluation(tmp_path / "good", {"p": [RIGHT]})
    for name, left, said in (
        ("unfinished", "journal.jsonl", "an unfinished evaluation; run its `hone eval` again"),
        ("unscored", "generations.parquet", "not scored yet; hone regrade"),
        ("run", "manifest.json", "a run, not an evaluation"),
        ("other", "notes.txt", "no evaluation there"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / left).touch()
        with pytest.raises(HoneError, match=said):
            write_leaderboard([good, tmp_path / name], tmp_path / "page.html")
    with pytest.raises(HoneError, match="no such folder"):
        write_leaderboard([tmp_path / "nowhere"], tmp_path / "page.html")
    with pytest.raises(HoneError, match="no evaluation to compare"):
        write_leaderboard([], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_same_evaluation_twice(tmp_path: Path) -> None:
    a, b = (write_evaluation(tmp_path / name, {"p": [RIGHT]}) for name in "ab")
    with pytest.raises(HoneError, match=r"given twice \(as .*a\)"):
        write_leaderboard([a, b, tmp_path / "b" / ".." / "a"], tmp_path / "page.html")
    with pytest.raises(HoneError, match=r"b: the same model, benchmark and settings as .*a"):
        write_leaderboard([a, b], tmp_path / "page.html")


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("scores.json", "{", r"scores\.json: not valid JSON"),
        ("scores.json", "[]", r"scores\.json: not a JSON object"),
        ("scores.json", '{"model": "a"}', r"scores\.json: no benchmark in it; score it again: hone regrade"),
        ("verdicts.jsonl", '{"id": "p", "index": 0, "verdict": "right"}\n{"id"', r"verdicts\.jsonl, line 2: not valid"),
        ("verdicts.jsonl", '{"id": "p"}', r"verdicts\.jsonl, line 1: no index in it"),
        ("verdicts.jsonl", '{"id": "q", "index": 0, "verdict": "right"}', r"is not of generations\.parquet; .*regrade"),
        ("verdicts.jsonl", '{"id": "p", "index": 0, "verdict": "right"}\n' * 2, r"is not of generations\.parquet"),
        ("problems.jsonl", "{}", r"problems\.jsonl, line 1: no id in it"),
        ("generations.parquet", "PAR1", r"generations\.parquet: cannot be read"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, file: str, text: str, said: str) -> None:
    folder = write_evaluation(tmp_path / "a", {"p": [RIGHT]})
    (folder / file).write_text(text)
    with pytest.raises(HoneError, match=said):
        write_leaderboard([folder], tmp_path / "page.html")


@pytest.mark.parametrize("file", ["verdicts.jsonl", "problems.jsonl", "generations.parquet"])
def test_missing_files_are_named(tmp_path: Path, file: str) -> None:
    folder = write_evaluation(tmp_path / "a", {"p": [RIGHT]})
    (folder / file).unlink()
    with pytest.raises(HoneError, match=file):
        write_leaderboard([folder], tmp_path / "page.html")


def test_without_plotly_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_evaluation(tmp_path / "a", {"p": [RIGHT]})
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(HoneError, match=r"needs plotly.*pip install 'hone-r1\[report\]'"):
        write_leaderboard([folder], tmp_path / "page.html")
