"""What has happened in a notebook's process when it launches the training: nothing on a GPU.

A process that has started CUDA, or has imported bitsandbytes, can't be copied for a second GPU:
`accelerate.notebook_launcher` then refuses to start, as on Kaggle's two T4.
"""

import json
import subprocess
import sys

import nbformat
import pytest
from known_words import known_rows

from helpers.common import places
from helpers.concept.embedding import save_result
from helpers.series import publish as all_in_one
from helpers.series import run

# Runs the cells as a kernel does, up to the launch, which only reports. On a machine without CUDA
# its first calls are watched instead: `is_available` counts as one, unless it looks through NVML.
_KERNEL = """
import json, os, sys
import accelerate, torch
from IPython.core.interactiveshell import InteractiveShell

calls = []

def watch(name):
    function = getattr(torch.cuda, name)
    def watched(*given, **named):
        if os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK") != "1":
            caller = sys._getframe(1)
            calls.append(f"{name} from {caller.f_globals['__name__']}, line {caller.f_lineno}")
        return function(*given, **named)
    setattr(torch.cuda, name, watched)

def report(function, args, num_processes):
    libraries = {"bitsandbytes", "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion"}
    print("AT THE LAUNCH", json.dumps([calls, sorted(libraries & set(sys.modules)), args[0], num_processes]))
    os._exit(0)

for name in ("_lazy_init", "is_available"):
    watch(name)
accelerate.notebook_launcher = report
shell = InteractiveShell.instance(colors="nocolor")
for source in json.load(sys.stdin):
    shell.run_cell(source).raise_error()
"""


def cells(name):
    if name == "all_in_one":
        notebook = all_in_one.joined()
    else:
        [path] = [path for path in (*run.notebooks(), *run.other_notebooks()) if path.stem == name]
        notebook = nbformat.read(path, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name, learned", [("all_in_one", "grooty"), ("7_with_dreambooth", "starla")])
def test_no_cell_before_the_launch_starts_cuda_or_imports_a_pipeline(name, learned, grooty):
    save_result(grooty, known_rows("miniature", "toy toy"))  # which notebook 7 asks for
    ran = subprocess.run(
        [sys.executable, "-c", _KERNEL],
        input=json.dumps(cells(name)),
        cwd=places.repository_folder() / "notebooks",
        capture_output=True,
        text=True,
    )
    reports = [line for line in ran.stdout.splitlines() if line.startswith("AT THE LAUNCH ")]
    assert len(reports) == 1, ran.stdout[-2000:] + ran.stderr[-2000:]
    calls, libraries, first, processes = json.loads(reports[0].removeprefix("AT THE LAUNCH "))
    assert calls == [] and libraries == []
    assert first == learned and processes == 1
