# The gateway: docker build -t deluge . && docker run -p 8000:8000 -e OPENAI_API_KEY -e DELUGE_MASTER_KEY -v deluge:/data deluge
FROM python:3.13-slim AS build
WORKDIR /source
COPY . .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir '.[server,speed,postgres,prometheus]'

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /data --create-home deluge
COPY --from=build /venv /venv
USER deluge
WORKDIR /data
ENV PATH=/venv/bin:$PATH XDG_STATE_HOME=/data
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/live', timeout=3)"]
# A server that other machines can reach needs a key: DELUGE_MASTER_KEY, or one of `deluge keys create`.
CMD ["deluge", "serve", "--host", "0.0.0.0"]
