# Run `make` for the list of targets. All work is done by the scripts in .ci,
# which can also be run on their own.

.DEFAULT_GOAL := help
.PHONY: help setup build bundle up down test test-short acceptance attack bench lint generate clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing from the distribution's packages (root)
	@.ci/setup

build: ## build bin/atoll
	@.ci/build

bundle: ## write plugins and bundles for agents' stores to bin/bundles
	@.ci/build
	@.ci/go run ./cmd/atoll-bundle -version "$$(bin/atoll version | awk '{print $$2}')"

up: ## start the server, build the default image, run a first sandbox (root)
	@.ci/root "make up"
	@.ci/setup
	@.ci/build
	@bin/atoll up

down: ## stop the server and everything it made (root)
	@.ci/root "make down"
	@bin/atoll down

test: ## run the whole test suite, from nothing (root)
	@.ci/root "make test"
	@.ci/setup test
	@.ci/build
	@.ci/test

test-short: ## run the tests that take seconds (root)
	@.ci/root "make test-short"
	@.ci/setup test
	@.ci/build
	@.ci/test -short

acceptance: ## drive a server with published SDKs and agent frameworks (root)
	@.ci/root "make acceptance"
	@.ci/setup test
	@.ci/build
	@.ci/acceptance

attack: ## attack the network policies and the ledger from inside sandboxes (root)
	@.ci/root "make attack"
	@.ci/attack

bench: ## measure this machine against other container tools (root)
	@.ci/root "make bench"
	@.ci/setup
	@.ci/build
	@.ci/bench

lint: ## vet, static analysis and formatting
	@.ci/lint

generate: ## refresh generated files
	@.ci/go generate ./...

clean: ## remove what the build made and what crashed tests left
	@.ci/clean
	rm -rf bin engine/libexec/bin/atoll-toolbox engine/libexec/bin/containerd-shim-runc-v2
