// Package typed holds the chart to what a template cannot promise: every object it
// renders is decoded strictly into the real Go type of Kubernetes, KEDA or the
// Prometheus operator, and then its parts are held to each other, to the worker's
// settings and to its metrics. A module of its own, so that the product's go.mod
// stays lean.
//
//	HELM=/path/to/helm go test ./...
package typed
