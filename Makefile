# make help
.DEFAULT_GOAL := help

PROGRAMS := worker enqueue gatewaysim demo
FUZZTIME ?= 20s

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: test
test: ## gofmt, vet and the tests with the race detector, without the slow ones
	scripts/test

.PHONY: test-all
test-all: ## The same with the slow tests of real processes
	scripts/test --all

.PHONY: race
race: ## All tests with the race detector
	go test -race ./...

.PHONY: lint
lint: ## golangci-lint, at the pinned version
	scripts/lint

.PHONY: imports
imports: ## Check what the programs link
	scripts/imports

.PHONY: model
model: ## Check the model of docs/model with spin
	scripts/model

.PHONY: demo
demo: ## Run everything in one process, with 14 payments
	go run ./cmd/demo

.PHONY: serve
serve: ## The demo; keeps running, with the web pages
	go run ./cmd/demo --serve

.PHONY: bench
bench: ## Compare with asynq alone; benchmarks of single packages
	go run ./bench
	go test -run '^$$' -bench . -benchmem ./...

.PHONY: chaos
chaos: ## Kill real workers and Redis at random, then verify the payments
	go run ./bench/chaos

.PHONY: fuzz
fuzz: ## Each fuzz target for FUZZTIME (20s)
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed 's/:func / /' | while read -r file target; do \
		echo "$$target ($$file)"; \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$file")" || exit 1; \
	done

.PHONY: build
build: ## Static binaries in bin/
	CGO_ENABLED=0 go build -trimpath -ldflags "-X terbayar/internal/version.commit=$$(git rev-parse --short HEAD)" -o bin/ $(PROGRAMS:%=./cmd/%)

.PHONY: chart
chart: ## All checks of the Helm chart
	scripts/chart

.PHONY: compose
compose: ## All checks of compose.yaml
	scripts/compose

.PHONY: image
image: ## Build the image as an OCI layout in bin/image, without a container engine
	scripts/image

.PHONY: ci
ci: ## Everything that CI runs
	.ci/run

.PHONY: clean
clean: ## Remove bin/
	rm -rf bin
