# make help
.DEFAULT_GOAL := help

PROGRAMS := worker enqueue gatewaysim demo
FUZZTIME ?= 20s

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: test
test: ## gofmt, vet and all tests with the race detector
	scripts/test

.PHONY: race
race: ## The tests alone, with the race detector
	go test -race ./...

.PHONY: lint
lint: ## golangci-lint, at its pinned version
	scripts/lint

.PHONY: walls
walls: ## Check what the programs link
	scripts/imports

.PHONY: model
model: ## The model of docs/model, checked by spin
	scripts/model

.PHONY: demo
demo: ## All of it in one process, 14 payments to their end
	go run ./cmd/demo

.PHONY: serve
serve: ## The demo, staying up with its web pages
	go run ./cmd/demo --serve

.PHONY: bench
bench: ## What it costs beside bare asynq, and the benchmarks of single rooms
	go run ./bench
	go test -run '^$$' -bench . -benchmem ./...

.PHONY: chaos
chaos: ## Real workers, Redis and simulated gateways, killed at random and judged
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
chart: ## Every check of the Helm chart
	scripts/chart

.PHONY: image
image: ## The image as an OCI layout in bin/image, without a container engine
	scripts/image

.PHONY: ci
ci: ## What CI runs
	.ci/run

.PHONY: clean
clean: ## Remove bin/
	rm -rf bin
