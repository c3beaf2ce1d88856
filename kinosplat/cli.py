"""The command line: `kinosplat COMMAND …`, and `train …` as a short way to say `kinosplat train …`.

Each command is a module of `kinosplat.commands` with `run(arguments, program) -> int`, imported when it is asked for.
Exit codes: 0 done; 2 something the user gave cannot be used, or memory ran out (one sentence on stderr); 130
interrupted, all saved; 141 whoever read the output went away.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from kinosplat import __version__
from kinosplat.errors import BackendError, InputError, as_memory_error

COMMANDS = {
    "train": "Learn a scene from calibrated photos or multi-view video.",
    "eval": "Measure a run on its held-out views and write a table per view.",
    "render": "Render a run or a file: test views, an orbit, or a camera path, as pictures or video.",
    "view": "Look at a run or a file in the browser.",
    "info": "Explain a run, a file or a scene in a few lines.",
    "compress": "Make a run small: one .kino file, and a report of every stage.",
    "import": "Make a .kino file of what another tool wrote.",
    "export": "Write a run or a file in a format that other tools open.",
    "bench": "Time the renderer on a run, stage by stage, with a fixed orbit.",
    "data": "List, explain and download known scenes.",
}
MODULES = {"import": "import_file"}
"""Commands whose name no module can have."""
WITHOUT_MEMORY = {
    "train": "make the pictures smaller with --downscale, or the model with --max-gaussians or --log2-table-size",
    "eval": "use another device with --device cpu",
    "render": "make the pictures smaller with --resolution, or use another device with --device cpu",
    "view": "use another device with --device cpu",
    "compress": "use another device with --device cpu",
    "bench": "make the pictures smaller with --resolution, or use another device with --device cpu",
}
"""What to do about memory that runs out; of the other commands there is nothing to be made smaller."""
EXIT_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141


def usage() -> str:
    """What `kinosplat --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: kinosplat COMMAND [OPTIONS]",
            "",
            "Calibrated photos or multi-view video in, a 3D or 4D scene out.",
            "",
            *lines,
            "",
            "`kinosplat COMMAND --help` shows the options of a command; `kinosplat --version` the version.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(f"kinosplat {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        return _refuse(f"{name} is not a command; choose one of {', '.join(COMMANDS)}.")
    return _run(name, rest, f"kinosplat {name}")


def train_main(arguments: Sequence[str] | None = None) -> int:
    """The `train` program."""
    return _run("train", list(sys.argv[1:] if arguments is None else arguments), "train")


def _run(name: str, arguments: list[str], program: str) -> int:
    module = importlib.import_module(f"kinosplat.commands.{MODULES.get(name, name)}")
    try:
        with as_memory_error():
            code = int(module.run(arguments, program))
        sys.stdout.flush()
        return code
    except (InputError, BackendError) as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has enough; without this the interpreter would complain while it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except MemoryError:
        remedy = WITHOUT_MEMORY.get(name, "make room on this machine")
        return _refuse(f"There is not enough memory for `{program}`; {remedy}.")


def _refuse(sentence: str) -> int:
    print(f"kinosplat: {sentence}", file=sys.stderr)
    return EXIT_INPUT
