"""`hone decontaminate`: pairs of rows, the rows in none, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from hone.cli import app
from hone.decontaminate import decontaminate
from hone.types import HoneError

DATA = Path(__file__).parents[2].parent / "shared" / "data"
NEEDS_DATA = pytest.mark.skipif(
    not DATA.is_dir(), reason="the real data sets lie in shared/data beside the project, which is absent"
)


def words(first: int, last: int) -> str:
    return " ".join(f"w{number}" for number in range(first, last + 1))


def write(folder: Path, name: str, *rows: Any) -> str:
    file = folder / name
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return str(file)


def rows_of(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def pairs(folder: Path, train: list[Any], evaluation: list[Any], **settings: Any) -> list[tuple[int, int, str, str]]:
    """Return the pairs: the line of the training row, that of the evaluation row, the kind, what is shared."""
    out = folder / "pairs.jsonl"
    decontaminate(
        write(folder, "train.jsonl", *train), [write(folder, "eval.jsonl", *evaluation)], out, **settings
    )  # fmt: skip
    return [(row["train"]["line"], row["eval"]["line"], row["kind"], row["shared"]) for row in rows_of(out)]


def test_exact_and_by_thirteen_words(tmp_path: Path) -> None:
    train = [
        {"id": "t1", "problem": "What is $2+2$?"},
        {"id": "t2", "problem": f"so {words(1, 13)} end"},
        {"id": "t3", "problem": f"so {words(1, 12)} end"},
        {"id": "t4", "problem": "Something else.", "answer": "汉", "nested": {"kept": [1, 2.5, None]}},
    ]
    train_file = write(tmp_path, "train.jsonl", *train)
    eval_file = write(tmp_path, "e.jsonl", {"unique_id": "e1", "problem": "WHAT IS 2 + 2"}, {"problem": words(1, 30)})
    out, clean = tmp_path / "new" / "pairs.jsonl", tmp_path / "clean.jsonl"
    found = decontaminate(train_file, [eval_file], out, clean)
    assert rows_of(out) == [
        {
            "train": {"file": train_file, "line": 1, "id": "t1"},
            "eval": {"file": eval_file, "line": 1, "id": "e1"},
            "kind": "exact", "shared": "what is 2 + 2", "share": 1.0,
        },
        {
            "train": {"file": train_file, "line": 2, "id": "t2"},
            "eval": {"file": eval_file, "line": 2, "id": None},
            "kind": "13-gram", "shared": words(1, 13), "share": 0.0556,  # 1 of 18
        },
    ]  # fmt: skip
    assert rows_of(clean) == [train[2], train[3]]
    assert "汉" in clean.read_text("utf-8")
    assert found == (4, 2, 1, 1, 2, 2)


def test_a_share_can_be_asked_for(tmp_path: Path) -> None:
    train, evaluation = [{"text": words(1, 14)}, {"text": words(1, 25)}], [{"text": words(1, 30)}]
    assert [pair[0] for pair in pairs(tmp_path, train, evaluation)] == [1, 2]
    assert [pair[0] for pair in pairs(tmp_path, train, evaluation, min_share=0.5)] == [2]


def test_chinese_characters_are_words(tmp_path: Path) -> None:
    question = "小明有三个苹果，小红给了他两个，现在一共有几个？"
    found = pairs(tmp_path, [{"prompt": f"请回答：{question}谢谢"}, {"prompt": question}], [{"question": question}])
    assert [pair[:3] for pair in found] == [(1, 1, "13-gram"), (2, 1, "exact")]


def test_messages_are_texts_by_themselves(tmp_path: Path) -> None:
    def chat(user: str, answer: str, first: str = "role", second: str = "content") -> list[dict[str, Any]]:
        turns = (("system", "You are helpful."), ("user", user), ("assistant", answer))
        return [{first: role, second: text} for role, text in turns]

    train = [
        {"messages": chat("What is 2 + 2?", "four")},
        {"messages": chat("Continue.", f"As {words(1, 20)} says")},
        {"conversations": chat("What is 2+2", "4", "from", "value")},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "what is 2 + 2"}, {"type": "image"}]}]},
        {"messages": chat("Hello", "Hi")},
    ]
    evaluation = [{"messages": chat("What is 2 + 2?", "no matter")}, {"problem": words(1, 20)}]
    found = pairs(tmp_path, train, evaluation)
    assert [pair[:3] for pair in found] == [(1, 1, "exact"), (2, 2, "13-gram"), (3, 1, "exact"), (4, 1, "exact")]


def test_fields_are_guessed_or_named(tmp_path: Path) -> None:
    train = [{"body": "What is it?", "problem": "another"}, {"inner": "what is it"}]
    assert pairs(tmp_path, train[:1], [{"question": "What is it"}]) == []
    named = pairs(tmp_path, train, [{"inner": "What is it"}], field="body|inner")
    assert [pair[0] for pair in named] == [1, 2]
    with pytest.raises(HoneError, match=r"train.jsonl, line 2: no field 'problem' or .*has 'inner'; name .* --field"):
        pairs(tmp_path, train, [{"question": "What is it"}])


def test_several_evaluations_parquet_csv_and_a_built_in_benchmark(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"id": 7, "problem": "Where is the sea"}]), tmp_path / "train.parquet")
    (tmp_path / "one.csv").write_text("id,question\n1,where is the sea\n")
    two = write(tmp_path, "two.jsonl", {"question": "Where is the sea?"})
    out, clean = tmp_path / "pairs.jsonl", tmp_path / "clean.jsonl"
    found = decontaminate(str(tmp_path / "train.parquet"), [str(tmp_path / "one.csv"), two, "gcd"], out, clean)
    assert [(row["train"]["id"], Path(row["eval"]["file"]).name) for row in rows_of(out)] == [
        (7, "one.csv"), (7, "two.jsonl"),
    ]  # fmt: skip
    assert (found.num_eval, rows_of(clean)) == (202, [])
    from hone.tasks.benchmarks import load_benchmark

    asked = load_benchmark("gcd")[1][5]
    train = write(tmp_path, "train.jsonl", {"text": asked.question})
    decontaminate(train, ["gcd"], out)
    (row,) = rows_of(out)
    assert row["eval"] == {"file": "gcd (built in)", "line": 6, "id": asked.id}


@pytest.mark.parametrize(
    ("train", "why"),
    [
        ('{"problem": "a"}\n{"problem": \n', "train.jsonl, line 2: not JSON"),
        ('{"problem": 7}\n', "line 1: 'problem' is a number, neither text nor messages"),
        ('{"messages": ["hello"]}\n', "line 1: 'messages' holds text, not a message"),
        ("", "no rows"),
        ('{"problem": "a"}\n\xff\n', "line 2: not UTF-8"),
    ],
)
def test_a_bad_row_leaves_nothing_half_written(tmp_path: Path, train: str, why: str) -> None:
    (tmp_path / "train.jsonl").write_bytes(train.encode("latin-1"))
    evaluation = write(tmp_path, "eval.jsonl", {"problem": "a"})
    out, clean = tmp_path / "pairs.jsonl", tmp_path / "clean.jsonl"
    out.write_text("the report before\n")
    with pytest.raises(HoneError, match=why):
        decontaminate(str(tmp_path / "train.jsonl"), [evaluation], out, clean)
    assert out.read_text() == "the report before\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["eval.jsonl", "pairs.jsonl", "train.jsonl"]


def test_what_is_read_is_not_written_over(tmp_path: Path) -> None:
    train, evaluation = (write(tmp_path, f"{name}.jsonl", {"problem": "a"}) for name in ("train", "eval"))
    for out, clean, why in (
        (train, None, "--out .* is a file that is read"),
        (str(tmp_path / "out"), evaluation, "--clean .* is a file that is read"),
        (str(tmp_path / "x.jsonl"), str(tmp_path / "x.jsonl"), "are both"),
        (str(tmp_path), None, "is a folder"),
        (str(tmp_path / "out"), str(tmp_path / "clean.parquet"), "name a .jsonl file"),
        (f"{train}/out.jsonl", None, "Not a directory|File exists"),
    ):
        with pytest.raises(HoneError, match=why):
            decontaminate(train, [evaluation], Path(out), Path(clean) if clean else None)
    assert len(rows_of(Path(train))) == len(rows_of(Path(evaluation))) == 1


def test_half_of_a_surrogate_pair_is_kept_as_an_escape(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"problem": "a \\ud83d"}\n')
    clean = tmp_path / "clean.jsonl"
    evaluation = write(tmp_path, "eval.jsonl", {"problem": "b"})
    decontaminate(str(tmp_path / "train.jsonl"), [evaluation], tmp_path / "pairs.jsonl", clean)
    assert rows_of(clean) == [{"problem": "a \ud83d"}]


def test_the_command(tmp_path: Path) -> None:
    train = write(tmp_path, "train.jsonl", {"problem": "What is 2 + 2?"}, {"problem": "Another."})
    evaluation = write(tmp_path, "eval.jsonl", {"problem": "what is 2+2"})
    out, clean = tmp_path / "pairs.jsonl", tmp_path / "clean.jsonl"
    arguments = ["decontaminate", "--train", train, "--eval", evaluation, "--out", str(out), "--clean", str(clean)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "2 training rows, 1 evaluation rows: 1 pairs exact, 0 by 13-grams" in done.output
    assert "1 training rows hold something of 1 evaluation rows; the other 1 are in" in done.output
    assert len(rows_of(out)) == len(rows_of(clean)) == 1


@NEEDS_DATA
def test_math_train_holds_ten_problems_of_the_test_set_and_none_of_math500(tmp_path: Path) -> None:
    out, clean = tmp_path / "pairs.jsonl", tmp_path / "clean.jsonl"
    evaluations = [str(DATA / "math_test5000.jsonl"), str(DATA / "math500.jsonl")]
    found = decontaminate(str(DATA / "math_train.jsonl"), evaluations, out, clean)
    exact = [row for row in rows_of(out) if row["kind"] == "exact"]
    assert len({row["eval"]["id"] for row in exact}) == found.exact == 10
    assert {row["eval"]["file"] for row in exact} == {evaluations[0]}
    kept = {row["id"] for row in rows_of(clean)}
    assert len(kept) == 7474 - found.num_train_held
    assert not kept & {row["train"]["id"] for row in rows_of(out)}
