# Two commands do all on a fresh machine with Python 3.11, pip, make and git:
#   make demo    the main job, shown on a real etcd and a real object store
#   make test    every test but the soak

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# pip is told which environment to fill, so that a Python without ensurepip will do.
PIP := $(PYTHON) -m pip --quiet --disable-pip-version-check --python $(BIN)/python
JOBS ?= 3

.PHONY: demo test soak fuzz lint format proto bench clean

demo: $(VENV)/.demo
	$(BIN)/backstay demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not soak"

soak: $(VENV)/.fuzz
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m soak --timeout 7200

fuzz: $(VENV)/.fuzz
	$(BIN)/python -m pytest -m soak tests/fuzz --timeout 7200

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# By the tools of the oldest protobuf that pyproject.toml allows: newer code refuses older ones.
proto:
	$(PYTHON) -m venv --without-pip $(VENV)-proto
	$(PYTHON) -m pip --quiet --python $(VENV)-proto/bin/python install 'grpcio-tools==1.70.0' 'setuptools<81'
	$(VENV)-proto/bin/python -m grpc_tools.protoc --proto_path src --python_out src --pyi_out src \
		src/backstay/client/proto/rpc.proto
	rm -rf $(VENV)-proto

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv --without-pip $(VENV)

$(VENV)/.demo $(VENV)/.test $(VENV)/.fuzz $(VENV)/.dev: $(VENV)/.%: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[$*]'
	touch $@
