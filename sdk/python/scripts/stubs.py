"""Generates the stubs of millstream.v1 from the protos: stubs.py [--out DIR] [--protos DIR]

Needs the packages of the extra `stubs`, in exactly those versions: what is checked in is compared with what they make.
"""

import argparse
import pathlib
import shutil
import sys
import tempfile

import grpc_tools
from grpc_tools import protoc

HERE = pathlib.Path(__file__).resolve().parent
CHECKED_IN = HERE.parent / "src/millstream/v1"
PROTOS = HERE.parents[1] / "proto"


def generate(protos: pathlib.Path, out: pathlib.Path) -> None:
    """Writes the modules for every proto below `protos` into `out`, and those of gRPC where a proto has a service."""
    files = sorted(str(file.relative_to(protos)) for file in protos.glob("millstream/v1/*.proto"))
    services = [file for file in files if "\nservice " in (protos / file).read_text()]
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    # Beside the interpreter, which need not be in the PATH.
    programs = [pathlib.Path(sys.executable).with_name(f"protoc-gen-{name}") for name in ("mypy", "mypy_grpc")]
    plugins = [f"--plugin={program.name}={program}" for program in programs]
    common = ["protoc", f"-I{protos}", f"-I{well_known}", *plugins]
    with tempfile.TemporaryDirectory() as folder:
        run([*common, f"--python_out={folder}", f"--mypy_out=quiet:{folder}", *files])
        run([*common, f"--grpc_python_out={folder}", f"--mypy_grpc_out=quiet:{folder}", *services])
        out.mkdir(parents=True, exist_ok=True)
        for old in [*out.glob("*_pb2*.py"), *out.glob("*_pb2*.pyi")]:
            old.unlink()
        for new in sorted(pathlib.Path(folder, "millstream/v1").iterdir()):
            shutil.copyfile(new, out / new.name)


def run(arguments: list[str]) -> None:
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=CHECKED_IN)
    parser.add_argument("--protos", type=pathlib.Path, default=PROTOS)
    given = parser.parse_args()
    generate(given.protos, given.out)
