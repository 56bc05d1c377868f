"""What every command does with its words: options out of a docstring, one line for what is wrong."""

from dataclasses import dataclass, fields

import pytest

from scannet_css.commands import Parser, add_device_option, add_options, given, run_command
from scannet_css.errors import InputError, Stop
from scannet_css.methods.method import option

DOC = """Does something.

    python do.py --epochs 3

More of it, 100 % of it.
"""


@dataclass
class Recipe:
    epochs: int = option(100, "epochs of a step")
    learning_rate: float = option(0.1, "learning rate")
    elastic: bool = option(True, "elastic distortion")


def parser():
    made = Parser(DOC)
    add_device_option(made)
    add_options(made, fields(Recipe), "recipe_")
    return made


def test_the_docstring_is_the_help():
    shown = parser().format_help()
    before, after = shown.split("options:\n")
    assert before.endswith("\n\nDoes something.\n\n")
    assert after.rstrip().endswith("    python do.py --epochs 3\n\nMore of it, 100 % of it.")
    assert "  --debug " in after and "epochs of a step (100)" in after


def test_only_what_is_given_is_given():
    options = parser().parse_args(["--learning-rate", "0.5", "--elastic", "false"])
    assert given(options, fields(Recipe), "recipe_") == {"learning_rate": 0.5, "elastic": False}
    assert options.device == "auto"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epoch", "3"], "unrecognized arguments: --epoch 3 (did you mean '--epochs'?)"),
        (["--lerning-rate=3"], "unrecognized arguments: --lerning-rate=3 (did you mean '--learning-rate'?)"),
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["data"], "unrecognized arguments: data"),
        (["--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["--elastic", "yes"], "argument --elastic: 'yes': expected true or false"),
        (["--device"], "argument --device: expected one argument"),
    ],
)
def test_a_wrong_option_is_one_line(words, message, capsys):
    assert run_command(lambda arguments: parser().parse_args(arguments) and None, words) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_subcommands_options_are_its_own(capsys):
    def main(arguments):
        made = Parser(DOC)
        commands = made.add_subparsers(dest="command", required=True)
        command = commands.add_parser("train", doc="Trains.\n\nLong.")
        command.add_argument("--batches", type=int)
        assert made.parse_args(arguments).batches == 3

    assert run_command(main, ["train", "--batches", "3", "--debug"]) == 0
    assert run_command(main, ["train", "--batch", "3"]) == 2
    assert capsys.readouterr().err.endswith("--batch 3 (did you mean '--batches'?)\n")
    assert run_command(main, []) == 2
    assert capsys.readouterr().err == "error: the following arguments are required: command\n"


def raising(error):
    def main(arguments):
        raise error

    return main


def test_errors_and_exit_codes(capsys, tmp_path):
    assert run_command(raising(InputError("data.json: is\nempty")), []) == 2
    assert capsys.readouterr().err == "error: data.json: is empty\n"
    assert run_command(raising(FileNotFoundError(2, "No such file", "x.json")), []) == 2
    assert capsys.readouterr().err == "error: x.json: No such file\n"
    assert run_command(raising(RuntimeError("DataLoader worker (pid 7) was killed.")), []) == 2
    message = "error: DataLoader worker (pid 7) was killed; fewer --workers take less memory, 0 take none\n"
    assert capsys.readouterr().err == message
    assert run_command(raising(Stop("stopped", 75)), []) == 75
    assert run_command(raising(KeyboardInterrupt()), []) == 130
    with pytest.raises(RuntimeError, match="a bug"):
        run_command(raising(RuntimeError("a bug")), [])


def test_debug_lets_them_through_wherever_it_stands():
    with pytest.raises(InputError, match="wrong"):
        run_command(raising(InputError("wrong")), ["--epochs", "3", "--debug"])
    assert run_command(lambda arguments: len(arguments), ["--debug", "x"]) == 1
