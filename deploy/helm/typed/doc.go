// Package typed tests what the chart renders. It decodes every object strictly into the Go
// type of Kubernetes, KEDA or the Prometheus operator, and checks that the objects agree with
// each other, with the worker's settings and with its metrics. It is a separate module to keep
// these dependencies out of the main go.mod.
//
//	HELM=/path/to/helm go test ./...
package typed
