//go:build tools

// The last kubelet that speaks CRI v1alpha2 and nothing else, which `cargo xtask cluster test --node --kubelet 1.22` builds from this module.
package programs

import _ "k8s.io/kubernetes/cmd/kubelet"
