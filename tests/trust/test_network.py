"""No part of a run on the miniature asks the network for anything."""

import os
import subprocess
import sys
import textwrap

from helpers.common import places

_RUN = """
    import socket

    asked = []

    def refuse(*where, **more):
        asked.append(where)
        raise OSError("no network here")

    socket.getaddrinfo = refuse
    socket.socket.connect = refuse

    from helpers.common.places import data_folder
    from helpers.concept import Concept
    from helpers.dataset import add_images
    from helpers.export import PROGRAMS, export_for
    from helpers.inference import generate, pipeline_with_word
    from helpers.model import check_base_model
    from helpers.training.train import train

    check_base_model("miniature")
    concept = Concept.make("quiet", training={"max_train_steps": 1, "sample_every": 0, "lr_warmup_steps": 0})
    concept.save()
    add_images(concept, data_folder() / "grooty", "miniature")
    train(concept)
    for program in PROGRAMS:
        export_for(concept, program)
    generate(pipeline_with_word("quiet"), ["<quiet>"], seeds=[1], steps=1)
    assert not asked, asked
"""


def test_teaching_drawing_and_exporting_on_the_miniature_ask_no_network(concepts):
    with_hub = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    command = [sys.executable, "-c", textwrap.dedent(_RUN)]
    ran = subprocess.run(
        command, cwd=places.repository_folder(), env=with_hub, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr[-1500:]
