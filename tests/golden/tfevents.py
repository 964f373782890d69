"""Reads an event file of ours with TensorBoard's own reader and keeps what it found.

    python tfevents.py FILE      # writes tfevents.bin (a copy) and tfevents.json

FILE is one that the test Events.TensorBoardReadsIt could have written: float32 scalars at steps 0,
1, ..., then one picture. Needs tensorboard, nothing else.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from tensorboard.backend.event_processing import event_accumulator

here = Path(__file__).parent
with tempfile.TemporaryDirectory() as folder:
    shutil.copy(sys.argv[1], Path(folder) / "events.out.tfevents.0000000001.host.1")
    events = event_accumulator.EventAccumulator(
        folder, size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    scalars = {t: [[e.step, e.value] for e in events.Scalars(t)] for t in sorted(tags["scalars"])}
    (tag,) = tags["images"]
    (image,) = events.Images(tag)
    answer = {"steps": image.step, "scalars": scalars,
              "image": [tag, image.width, image.height, len(image.encoded_image_string)]}
shutil.copy(sys.argv[1], here / "tfevents.bin")
(here / "tfevents.json").write_text(json.dumps(answer, indent=1) + "\n")
