// Package compose tests compose.yaml and the files that it mounts. It loads compose.yaml as docker
// compose does, and runs its parts without containers: Redis with the same command line, worker and
// gatewaysim with the same environment, Prometheus with the same configuration. It is a separate
// module to keep compose-go out of the main go.mod.
package compose
