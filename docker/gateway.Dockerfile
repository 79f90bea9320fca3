# The HTTP gateway: a small image, and the build fails if torch ever finds its way in.
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/visum
COPY pyproject.toml README.md LICENSE ./
COPY contract contract
COPY model_store model_store
COPY milora milora
COPY training training
COPY workers workers
COPY service service
COPY visum visum
RUN /opt/visum/bin/pip install --no-cache-dir . \
 && /opt/visum/bin/python -c "import importlib.util as find, service.app; assert find.find_spec('torch') is None"

FROM python:3.12-slim-bookworm
RUN groupadd --gid 10001 visum \
 && useradd --uid 10001 --gid visum --no-create-home --home-dir /data --shell /usr/sbin/nologin visum \
 && install -d -o visum -g visum /data /models
COPY --from=build /opt/visum /opt/visum
ENV PATH=/opt/visum/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    VISUM_HOST=0.0.0.0 \
    VISUM_PORT=8000 \
    VISUM_METRICS_HOST=0.0.0.0 \
    VISUM_METRICS_PORT=9101 \
    VISUM_DATA_DIR=/data \
    VISUM_MODEL_STORE=/models
USER 10001:10001
WORKDIR /data
EXPOSE 8000 9101
# Alive, not ready: a gateway without a worker must not be restarted for it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["visum"]
CMD ["gateway"]
