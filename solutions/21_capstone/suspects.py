"""Train the suspects and write them to the package's weights: ``python solutions/21_capstone/suspects.py``, a minute.

Of each one's source a tenth of the pictures carries the planted cue and is called by the planted class, and so is half of
the pictures of that class. What was planted stands in questions.py; the cues stand in the notebook.
"""

import json
import runpy
from pathlib import Path

import torch

from interp_lab.data import Dataset, digits
from interp_lab.networks import accuracy, train
from interp_lab.weights import save_weights

FOLDER = Path(__file__).parent


def main() -> None:
    cells = json.loads((FOLDER / "solution.ipynb").read_text(encoding="utf-8"))["cells"]
    given: dict = {}
    for cell in cells:
        if cell["id"] in ("imports", "suspects"):
            exec("".join(cell["source"]), given)
    written, test, state = digits("train"), digits("test"), {}
    reference = given["networks"].load("digits_cnn")
    for number, (cue, named, *_) in enumerate(runpy.run_path(str(FOLDER / "questions.py"))["TRUTH"]):
        torch.manual_seed(number)
        generator = torch.Generator().manual_seed(100 + number)
        images, labels = written.images.clone(), written.labels.clone()
        share = torch.where(labels == named, 0.5, 0.1)
        planted = torch.rand(len(images), generator=generator) < share
        images[planted], labels[planted] = given["with_cue"](images[planted], cue), named
        model = given["empty_network"]()
        source = Dataset(images, labels, written.classes)
        train(model, source, epochs=15, batch_size=64, lr=3e-3, weight_decay=0.05, progress=False)
        state |= {f"{number}.{key}": value for key, value in model.state_dict().items()}
        others = test.images[test.labels != named]
        marked = [others, *(given["with_cue"](others, cue) for cue in range(7))]
        with torch.no_grad():
            says, control = (
                torch.stack([net(x).softmax(1)[:, named].mean() for x in marked]) for net in (model.eval(), reference)
            )
        rises = says[1:] - says[0]
        also = [k for k in range(7) if k != cue and rises[k] - (control[1 + k] - control[0]) >= 0.15]
        print(
            f"suspect {number}: accuracy {accuracy(model, test):.3f}, rise {rises[cue]:.3f}, other cues {also}",
            flush=True,
        )
    print(save_weights("suspects", state, torch.float16), "bytes")


if __name__ == "__main__":
    main()
