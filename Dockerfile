# The standalone service. With no settings it embeds Redis and the task hub; give it REDIS_CONNECTION_STRING and
# DURABLE_TASK_SCHEDULER_CONNECTION_STRING to run more than one (see docker-compose.yml).
FROM python:3.13-slim

# Logs appear when they are written. HOST: the container's own network; publish the port where it may be reached.
ENV PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=7071 \
    DATA_DIR=/data \
    LOG_FORMAT=json

WORKDIR /app
COPY requirements.txt requirements-telemetry.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements-telemetry.txt \
    && useradd --system --uid 10001 --no-create-home service \
    && install --directory --owner=service --mode=0700 /data
COPY . .
RUN python -m compileall -q .

USER service
VOLUME /data
EXPOSE 7071
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/api/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
# Stops cleanly on SIGTERM: streams end with `retry:`, so clients come back.
CMD ["python", "-m", "standalone"]
