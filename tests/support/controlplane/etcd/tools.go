//go:build tools

// Package etcdbuild pins the etcd of the test control plane.
package etcdbuild

import _ "go.etcd.io/etcd/server/v3"
