"""One name for one thing: options of the commands, arguments of the functions, and what messages call them."""

import ast
import inspect
import re
from pathlib import Path

import pytest
from vithub.data.argument_names import argument, renamed, stated, stated_field, typed_as
from vithub.interpretability.demo.page import build_page, serve_page
from vithub.interpretability.demo.space import write_space
from vithub.scripts.command_line import app, run
from vithub.training.dataset_prediction import predict_dataset
from vithub.training.run_list.listing import list_runs
from vithub.training.sweeping import sweep

import vithub

ROOT = Path(__file__).parents[2]
COMMANDS = {known.callback.__name__: known.callback for known in app.registered_commands}
FUNCTIONS = {
    "check_data": [vithub.check_data],
    "compare": [vithub.compare],
    "convert": [vithub.convert],
    "demo": [build_page, serve_page, write_space],
    "evaluate": [vithub.evaluate],
    "explain": [vithub.explain],
    "export": [vithub.export],
    "finetune": [vithub.finetune],
    "models": [],  # prints a table that has no argument
    "predict": [vithub.predict, vithub.predict_stream, predict_dataset],
    "pretrain": [vithub.pretrain],
    "publish": [vithub.publish],
    "runs": [list_runs],
    "sweep": [sweep],
    "verify": [vithub.verify],
}
PRINTED = "how the command prints; the function returns the content"
PICTURE = "a picture for a person, which `augmented_picture` makes"
REPORT = "of the report on many image files; the function explains pixels and returns maps, which have `save`"
MEASURED = "calls `optimize`, whose model is the function's `backend`"
FAST = dict.fromkeys(("fast", "fast_seconds", "fast_int8", "token_merging"), MEASURED)
# Options without an argument of that name, and arguments without an option, by command, each with the reason.
COMMAND_ONLY = {
    "check_data": {
        "augmentation": PICTURE, "shortest": PICTURE, "examples": PRINTED, "json_": PRINTED,
        "objects_column": "one of the function's **columns",
    },
    "compare": {"json_": PRINTED},
    "convert": {"json_": PRINTED},
    "demo": {
        "space": "chooses `write_space`, whose first argument it is", "backend": "of `load_any_model`, for `DemoModel`",
    },
    "evaluate": {"json_": PRINTED, **FAST},
    "explain": {"images": REPORT, "output": REPORT, "overwrite": REPORT, "on_bad_image": REPORT},
    "export": {"format_": "`format`, which is a name of Python's own", "json_": PRINTED},
    "models": {"json_": PRINTED},
    "finetune": {"set_": "`values`: many NAME=VALUE texts are one dictionary in Python", "json_": PRINTED},
    "predict": {"json_": PRINTED, **FAST},
    "pretrain": {"set_": "`values`: many NAME=VALUE texts are one dictionary in Python", "json_": PRINTED},
    "publish": {
        "json_": PRINTED, "space": "calls `write_space` or `export` too", "web_runtime": "calls `export` with `space`",
    },
    "runs": {"json_": PRINTED, "plot": "calls `save_curves`"},
    "sweep": {"set_": "`values`: many NAME=VALUE texts are one dictionary in Python", "json_": PRINTED},
    "verify": {"json_": PRINTED},
}  # fmt: skip
OBJECT = "an object of Python"
TOKEN = "a secret, which a command line would leave in the shell's history; commands read HF_TOKEN or the login"
FUNCTION_ONLY = {
    "check_data": {"columns": "`objects_column` and further names of columns", "reporter": OBJECT},
    "compare": {"reporter": OBJECT, "cost": OBJECT, "command": "the command line itself, for the report"},
    "convert": {"dtype": OBJECT, "token": TOKEN, "fields": "fields of a configuration have types, which texts lack"},
    "demo": {"page": OBJECT, "announce": OBJECT, "target": "`space` on the command line"},
    "evaluate": {"reporter": OBJECT},
    "explain": {
        "pixel_values": "tensors, where the command reads `images`", "pixel_mask": OBJECT, "on_pass": OBJECT,
        "seed": "of the random map alone, which the command draws once",
    },
    "export": {"format": "`--format`", "reporter": OBJECT},
    "finetune": {"values": "`--set` on the command line", "reporter": OBJECT},
    "models": {},
    "predict": {"reporter": OBJECT, "rows_per_file": "a choice of programs that read the files"},
    "pretrain": {"values": "`--set` on the command line", "reporter": OBJECT},
    "publish": {"token": TOKEN, "check": "a command never leaves the check out"},
    "runs": {},
    "sweep": {"values": "`--set` on the command line", "reporter": OBJECT},
    "verify": {"reporter": OBJECT},
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_options_and_arguments_have_the_same_names(name):
    options = set(inspect.signature(COMMANDS[name]).parameters)
    arguments = {one for function in FUNCTIONS[name] for one in inspect.signature(function).parameters}
    assert options - arguments == set(COMMAND_ONLY[name])
    assert arguments - options == set(FUNCTION_ONLY[name])


def test_every_command_has_its_functions():
    assert set(COMMANDS) == set(FUNCTIONS) == set(COMMAND_ONLY) == set(FUNCTION_ONLY)


OLD = [
    (vithub.finetune, (), "out", "output", {"front_end": "keras"}),
    (vithub.finetune, (), "preset_name", "preset", {"front_end": "keras"}),
    (vithub.evaluate, ("run",), "out", "output", {"on_bad_image": "ignore"}),
    (vithub.predict, ("run", "photo.png"), "out", "output", {"on_bad_image": "ignore"}),
    (vithub.predict_stream, ("run", "photo.png"), "out", "output", {"on_bad_image": "ignore"}),
    (predict_dataset, ("run", "data"), "out", "output", {"on_bad_image": "ignore"}),
    (vithub.check_data, (), "source", "data", {"box_format": "xywz"}),
    (vithub.check_data, ("/no/such/place",), "out", "output", {"box_format": "xywz"}),
]


@pytest.mark.parametrize(("function", "given", "old", "new", "wrong"), OLD)
def test_an_old_name_is_taken_with_a_warning_and_not_beside_the_new_one(function, given, old, new, wrong):
    assert old not in inspect.signature(function).parameters
    raises = pytest.raises(ValueError, match=r"keras|ignore|xywz|no data set")
    with pytest.warns(FutureWarning, match=f"^`{old}` is now called `{new}`$") as caught, raises:
        function(*given, **{old: "/no/such/place"}, **wrong)
    assert caught[0].filename == __file__
    with pytest.raises(TypeError, match=f"`{old}` is the old name of `{new}`"):
        function(*given, **{old: "here", new: "there"})


def test_the_old_name_gives_the_value_to_the_new_one():
    @renamed(old="new")
    def function(first, new=None):
        return first, new

    with pytest.warns(FutureWarning):
        assert function(1, old=2) == (1, 2)
    assert function(1, new=2) == function(1, 2) == (1, 2)
    with pytest.warns(FutureWarning), pytest.raises(TypeError, match="multiple values"):
        function(1, 3, old=2)


def test_a_message_names_what_the_person_at_hand_can_state():
    assert (argument("output"), stated(resume=True, lr=0.5)) == ("`output`", "resume=True, lr=0.5")
    assert stated_field("data.workers", 1) == "values={'data.workers': 1}"
    with typed_as({"output": "--output", "resume": "--resume", "on_bad_image": "--on-bad-image"}):
        assert argument("output") == "--output"
        assert stated(resume=True, on_bad_image="skip") == "--resume --on-bad-image skip"
        assert stated_field("data.workers", 1) == "--set data.workers=1"
        assert argument("reporter") == "`reporter`", "what has no option"
    assert argument("output") == "`output`"


def test_one_error_in_python_and_on_the_command_line(finished_run, digit_folders, tmp_path, capsys):
    photo = str(next(digit_folders.rglob("*.png")))
    with pytest.raises(ValueError, match=r"^`output` is for the boxes of a detector"):
        vithub.predict(finished_run.folder, photo, output=tmp_path / "out")
    assert run(lambda: app(["predict", str(finished_run.folder), photo, "--output", str(tmp_path / "out")])) == 1
    assert "error: --output is for the boxes of a detector" in capsys.readouterr().err


def texts(tree):
    """Strings of a program that are no docstrings, with their lines; of f-strings the parts that are fixed, in one."""
    inside, found = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            inside.add(id(node.body[0].value))
        if isinstance(node, ast.JoinedStr):
            parts = [part for part in node.values if isinstance(part, ast.Constant)]
            inside |= {id(part) for part in parts}
            found.append((node.lineno, "...".join(part.value for part in parts)))
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in inside]
    return found + [(node.lineno, node.value) for node in constants if isinstance(node.value, str)]


def test_no_text_of_the_library_writes_an_option_out():
    """Such a text would be wrong for Python; `argument` and `stated` write it. Whole commands may be quoted."""
    taken = {name.strip("_").replace("_", "-") for command in COMMANDS.values() for name in
             inspect.signature(command).parameters}  # fmt: skip
    option = re.compile(rf"(?<![\w-])--({'|'.join(sorted(taken, key=len, reverse=True))})(?![\w-])")
    found = [
        f"{file.relative_to(ROOT)}:{line}: {text}"
        for room in ("comparison", "data", "hub", "interpretability", "modeling", "training")
        for file in sorted((ROOT / room).glob("*.py"))
        for line, text in texts(ast.parse(file.read_text(encoding="utf-8")))
        if option.search(text) and "vithub " not in text and file.name not in ("argument_names.py", "comparing.py")
    ]
    assert found == []
