"""Each data set's reader, on rows in its layout, and on the real files where they are."""

from __future__ import annotations

import pytest

from latentgym.data import DATASETS, DataError, load
from latentgym.data.files import Row, check_fields
from latentgym.data.maths import last_boxed, number_text


@pytest.mark.parametrize(
    ("name", "fields", "gold", "steps"),
    [
        (
            "GSM8K",
            {"question": " Q? ", "answer": "2*3 = <<2*3=6>>6 eggs\n\nSo <<6/2=3>>3.\n#### 1,003"},
            "1,003",
            ("2*3 = 6 eggs", "So 3."),
        ),
        (
            "GSM8KAug",
            {"question": "Q?", "cot": "<<2*3=6>> <<6+1=7>>", "answer": "7"},
            "7",
            ("<<2*3=6>>", "<<6+1=7>>"),
        ),
        ("GSM8KAug", {"question": "Q?", "steps": ["<<2*3=6>>"], "answer": 6}, "6", ("<<2*3=6>>",)),
        ("GSM8KAug", {"question": "Q?", "cot": "", "steps": [], "answer": "6"}, "6", ()),
        ("GSMHard", {"input": "Q?", "code": "x", "target": -4120355.0}, "-4120355", ()),
        ("GSMHard", {"input": "Q?", "code": "x", "target": 3.0519e-06}, "3.0519e-06", ()),
        (
            "SVAMP",
            {"Body": "B", "Question": "Q?", "Equation": "( 7.0 - 2.0 )", "Answer": 5.0},
            "5",
            ("( 7.0 - 2.0 )",),
        ),
        ("SVAMP", {"Body": "B", "Question": "Q?", "Answer": "145.00"}, "145", ()),
        ("MultiArith", {"question": " Q? ", "final_ans": "39"}, "39", ()),
        (
            "MATH",
            {"problem": "Q?", "level": "Level 3", "type": "Algebra", "solution": "a\n\\boxed{x^2}"},
            "x^2",
            ("a", "\\boxed{x^2}"),
        ),
        (
            "MATH500",
            {"problem": "Q?", "level": 3, "subject": "Algebra", "solution": "s", "answer": "2"},
            "2",
            ("s",),
        ),
        ("AIME2024", {"problem": "Q?", "answer": "025", "year": "2024"}, "25", ()),
        ("AIME2025", {"problem": "Q?", "answer": 70}, "70", ()),
        (
            "ProsQA",
            {"question": "Q?", "answer": "A is a b.", "steps": ["s"], "idx_to_symbol": ["A", "b"],
             "edges": [[0, 1]], "root": 0, "target": 1, "neg_target": 1},
            "A is a b.",
            ("s",),
        ),
        ("ProntoQA", {"question": "Q?", "answer": "True", "steps": ["s"]}, "True", ("s",)),
        ("NQ", {"id": "1", "question": " Q?", "golden_answers": [" A\n B", "C"]}, "A B", ()),
        (
            "ProntoQA",
            {"context": "C.", "question": "Q?", "options": ["A) True", "B) False"], "answer": "B",
             "explanation": ["s"]},
            "False",
            ("s",),
        ),
    ],
)  # fmt: skip
def test_layouts(name: str, fields: dict[str, object], gold: str, steps: tuple[str, ...]) -> None:
    spec = DATASETS[name]
    check_fields(Row("f", 1, fields), spec.fields)
    question = spec.read(fields)
    assert question.text.endswith("Q?")
    assert (question.gold, question.steps) == (gold, steps)


@pytest.mark.parametrize(
    ("problem", "answer", "gold"),
    [
        ("How many?", "31,250", r"31,\!250"),
        ("Enter all, separated by commas.", "70,110", "70,110"),
        ("How many?", "1,234,567", "1,234,567"),
        ("How many?", "3,4", "3,4"),
    ],
)
def test_one_number_is_written_apart_from_a_list(problem: str, answer: str, gold: str) -> None:
    row = {"problem": problem, "solution": rf"It is \boxed{{{answer}}}."}
    assert DATASETS["MATH"].read(row).gold == gold


def test_extras() -> None:
    math = DATASETS["MATH"].read
    solution = "\\boxed{1}"
    known = math({"problem": "Q", "level": "Level 3", "type": "Algebra", "solution": solution})
    assert known.extra == {"level": 3, "type": "Algebra"}
    unknown = math(
        {"problem": "Q", "level": "Level ?", "subject": "Geometry", "solution": solution}
    )
    assert unknown.extra == {"level": None, "type": "Geometry"}
    assert DATASETS["AIME2024"].read({"problem": "Q", "answer": "1", "year": "2024"}).extra == {
        "year": 2024
    }
    graph = {"question": "Q", "answer": "a", "edges": [[0, 1]], "root": 0, "other": 3}
    assert DATASETS["ProsQA"].read(graph).extra == {"edges": [[0, 1]], "root": 0}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("GSM8K", {"question": "Q?", "answer": "no mark"}),
        ("GSM8K", {"question": "Q?", "answer": "empty ####  "}),
        ("GSMHard", {"input": "Q?", "target": float("inf")}),
        ("MATH", {"problem": "Q?", "solution": "no box"}),
        ("MATH", {"problem": "Q?", "solution": "\\boxed{open"}),
        ("AIME2024", {"problem": "Q?", "answer": "x"}),
        ("ProntoQA", {"context": "C", "question": "Q?", "options": ["A) True"], "answer": "B"}),
        ("NQ", {"id": "1", "question": "Q?", "golden_answers": []}),
        ("NQ", {"id": "1", "question": "Q?", "golden_answers": ["A", " \n"]}),
        ("NQ", {"id": "1", "question": "Q?", "golden_answers": ["A", 3]}),
    ],
)
def test_rows_that_make_no_question(name: str, fields: dict[str, object]) -> None:
    with pytest.raises((ValueError, LookupError)):
        DATASETS[name].read(fields)


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        ("\\boxed{1} and \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\{1\\}}", "\\{1\\}"),
        ("\\fbox{3}", "3"),
        ("$\\boxed 5$.", "5"),
    ],
)
def test_last_boxed(solution: str, gold: str) -> None:
    assert last_boxed(solution) == gold


def test_number_text() -> None:
    assert [number_text(v) for v in (18.0, -3, 2.5, " 1,000 ", 1e-7)] == [
        "18", "-3", "2.5", "1,000", "1e-07",
    ]  # fmt: skip


def test_every_spec_is_complete() -> None:
    for name, spec in DATASETS.items():
        assert spec.name == name
        assert {"test", "dev"} & set(spec.files)
        assert spec.licence and spec.url.startswith("https://")
        assert set(spec.stand_ins) <= set(spec.files)


# As the READMEs of the files have it: these are facts about the public data.
ROWS = {
    ("GSM8K", "train"): 7473,
    ("GSM8KAug", "valid"): 500,
    ("SVAMP", "train"): 700,
    ("SVAMP", "test"): 300,
    ("AIME2024", "test"): 30,
    ("AIME2025", "test"): 30,
    ("NQ", "test"): 3610,
    ("Bamboogle", "test"): 125,
}


@pytest.mark.parametrize("name", list(DATASETS))
def test_real_rows(name: str, real_data: str) -> None:
    spec = DATASETS[name]
    found = 0
    for split in spec.splits:
        try:
            data = load(spec, split, source=f"{real_data}/{spec.folder}")
        except DataError:
            continue
        found += 1
        assert len(data) == ROWS.get((name, split), len(data))
        for question in data:
            assert question.text and question.gold
            assert "<<" not in "".join(question.steps) or name == "GSM8KAug"
    if not found:
        pytest.skip(f"{real_data} has no {spec.folder}")
