"""`python -m helpers.export FILE --to comfyui --out FOLDER`: any trainer's file for any program."""

import argparse
import sys
from pathlib import Path

from ..common.errors import UserError
from .files import KINDS, convert
from .formats import PROGRAMS


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="helpers.export", description="Convert the file of a word.")
    parser.add_argument("file", type=Path, help=".safetensors, .pt, .bin or .png, of any trainer")
    parser.add_argument("--to", required=True, choices=PROGRAMS, help="the program that is to read it")
    parser.add_argument("--out", required=True, type=Path, help="the folder for the new file")
    parser.add_argument("--kind", default="safetensors", choices=KINDS)
    parser.add_argument("--half", action="store_true", help="float16, half the size")
    parser.add_argument("--replace", action="store_true", help="overwrite a file of that name")
    given = parser.parse_args(arguments)
    try:
        path, found = convert(given.file, given.to, given.out, given.half, given.kind, given.replace)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"Nothing can be written to {given.out} ({error.strerror}): choose another.", file=sys.stderr)
        return 1
    print(f"{path}: {found}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
