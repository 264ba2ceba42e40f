# A worker of a cluster that grades, built in the course's root: docker build -f grader/worker.dockerfile -t grading-worker .
# Python's version must be that of the machine that grades: --build-arg PYTHON=3.12. No solution and no key enter the image.
# --build-arg TORCH_INDEX=ADDRESS takes torch from the index that PyTorch's selector shows for CPU, and saves 5 GB.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim
ARG TORCH_INDEX=
RUN apt-get update && apt-get install -y --no-install-recommends bubblewrap && rm -rf /var/lib/apt/lists/*
WORKDIR /course
COPY requirements.txt pyproject.toml README.md LICENSE ./
COPY interp_lab interp_lab
COPY grader grader
RUN pip install --no-cache-dir -c requirements.txt torch torchvision ${TORCH_INDEX:+--index-url ${TORCH_INDEX}}
RUN pip install --no-cache-dir -c requirements.txt distributed . ./grader
# A process for each core; the address of the scheduler follows.
ENTRYPOINT ["dask", "worker", "--nworkers", "-1", "--nthreads", "1", "--no-dashboard"]
