"""Shared by the tests of grading: a sandbox lane, or a skip that says why there is none."""

import pytest

from grader import sandbox


@pytest.fixture(scope="session")
def lane():
    try:
        lane = sandbox.Lane(limits=sandbox.Limits(seconds=20))
    except sandbox.SandboxError as error:
        pytest.skip(str(error))
    yield lane
    lane.close()
