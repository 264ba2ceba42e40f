"""Right answers, differently written, and wrong ones that students write: see grader/corpus.py.

For a further question add answers of both kinds: at least three right ones and five wrong ones that lose points.
"""

# Names (grade_id) of the given code cells that the visible checks need.
SETTING = ["imports"]
# By question: the signature, and an expression that is of the right kind, and wrong.
EMPTY = {
    "1": ("roughness(maps)", "maps.sum(dim=(1, 2, 3)) + 2"),
}

ROW_BY_ROW = """
def roughness(maps):
    results = []
    for one in maps.sum(dim=1):
        results.append((one[:, 1:] - one[:, :-1]).abs().mean() + (one[1:] - one[:-1]).abs().mean())
    return torch.stack(results)
"""
BY_CONVOLUTION = """
def roughness(maps):
    flat = maps.sum(dim=1, keepdim=True)
    kernel = torch.tensor([-1.0, 1.0]).to(maps)
    across = torch.nn.functional.conv2d(flat, kernel.view(1, 1, 1, 2))
    down = torch.nn.functional.conv2d(flat, kernel.view(1, 1, 2, 1))
    return across.abs().flatten(1).mean(1) + down.abs().flatten(1).mean(1)
"""
BY_HIGH_AND_LOW = """
def roughness(maps):
    relevance, total = torch.einsum("nchw->nhw", maps), 0
    for axis in (1, 2):
        ahead = relevance.narrow(axis, 1, relevance.shape[axis] - 1)
        behind = relevance.narrow(axis, 0, relevance.shape[axis] - 1)
        total = total + (torch.maximum(ahead, behind) - torch.minimum(ahead, behind)).mean(dim=(1, 2))
    return total
"""
# Question, name, source of the answer cell.
RIGHT = [
    ("1", "row by row", ROW_BY_ROW),
    ("1", "convolution", BY_CONVOLUTION),
    ("1", "higher minus lower", BY_HIGH_AND_LOW),
]

ALL = "easy shape general batch side effects device"
# Question, name, text of the model answer and what stands in its place; the visible check that catches it and words of
# its message; the parts that it loses and words of their feedback.
WRONG = [
    ("1", "squares", ".abs()", ".square()", "q1", "A ramp", ALL, "largest difference"),
    ("1", "signs kept", ".abs()", "", "q1", "A chessboard", ALL, "largest difference"),
    ("1", "across only", "across + down", "across", "q1", "A ramp", ALL, "largest difference"),
    ("1", "sums", "mean(dim=(1, 2))", "sum(dim=(1, 2))", "q1", "A ramp", ALL, "largest difference"),
    ("1", "magnitudes of the channels", "maps.sum(dim=1)", "maps.abs().sum(dim=1)", "q1", "A chessboard",
     ALL, "largest difference"),
    ("1", "first channel", "maps.sum(dim=1)", "maps[:, 0]", "q1", "Two channels", "general batch side effects device",
     "largest difference"),
    ("1", "all maps together", "mean(dim=(1, 2))", "mean()", "q1", "shape (2,)", ALL, "must have shape"),
    ("1", "in place", "maps.sum(dim=1)", "maps[:, :1].copy_(maps.sum(dim=1, keepdim=True))[:, 0]", "q1",
     "have changed", "side effects", "had changed"),
    ("1", "on the CPU", "across + down", "torch.zeros(len(maps), dtype=maps.dtype) + across + down", "q1",
     "another device", "device", "follow x"),
]  # fmt: skip
