# One worker with the frozen backbone in memory. The registry's torch wheel brings its own CUDA libraries, so the
# base needs none: the NVIDIA container runtime adds the driver, and without a GPU the same image runs on the CPU.
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/build && python -m venv /opt/visum
# Everything from the index is pinned by hash (`make lock`); our own wheel is built without the index.
COPY docker/requirements-build.lock docker/requirements-worker.lock ./
RUN /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock \
 && /opt/visum/bin/pip install --no-cache-dir --require-hashes -r requirements-worker.lock
COPY pyproject.toml README.md LICENSE ./
COPY contract contract
COPY model_store model_store
COPY milora milora
COPY training training
COPY workers workers
COPY service service
COPY visum visum
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/visum/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM python:3.12-slim-bookworm
RUN groupadd --gid 10001 visum \
 && useradd --uid 10001 --gid visum --no-create-home --home-dir /data --shell /usr/sbin/nologin visum \
 && install -d -o visum -g visum /data /models
COPY --from=build /opt/visum /opt/visum
ENV PATH=/opt/visum/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/models/hub \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    VISUM_DATA_DIR=/data \
    VISUM_MODEL_STORE=/models \
    VISUM_WORKER_METRICS_HOST=0.0.0.0 \
    VISUM_WORKER_METRICS_PORT=9100
USER 10001:10001
WORKDIR /data
EXPOSE 9100
# The first start may have to fetch and load a backbone of many GB.
HEALTHCHECK --interval=15s --timeout=5s --start-period=600s --retries=4 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9100/metrics', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["visum"]
CMD ["worker"]
