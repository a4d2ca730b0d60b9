// A client of Kubernetes' own making for CRI v1alpha2, the last one published (k8s.io/cri-api 0.25), that runs a pod's life.
//
// Usage: v1alpha2 SOCKET IMAGE LOG_DIRECTORY
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1alpha2"
)

func main() {
	if len(os.Args) != 4 {
		fail("usage: v1alpha2 SOCKET IMAGE LOG_DIRECTORY")
	}
	socket, image, logs := os.Args[1], os.Args[2], os.Args[3]
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// As gRPC of those days did it: the socket's path is the authority.
	connection, err := grpc.DialContext(ctx, "unix://"+socket, grpc.WithAuthority(socket), grpc.WithBlock(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	check("connecting", err)
	defer connection.Close()
	runtime, images := cri.NewRuntimeServiceClient(connection), cri.NewImageServiceClient(connection)

	version, err := runtime.Version(ctx, &cri.VersionRequest{Version: "0.1.0"})
	check("Version", err)
	expect("the version of the API", version.RuntimeApiVersion, "v1alpha2")
	ready, err := runtime.Status(ctx, &cri.StatusRequest{})
	check("Status", err)
	for _, condition := range ready.Status.Conditions {
		expect(condition.Type, condition.Status, true)
	}
	pulled, err := images.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: image}})
	check("PullImage", err)

	pod := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: "old", Namespace: "default", Uid: "old-uid"},
		LogDirectory: logs, Hostname: "old-host", Linux: &cri.LinuxPodSandboxConfig{},
	}
	ran, err := runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: pod})
	check("RunPodSandbox", err)
	created, err := runtime.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: ran.PodSandboxId, SandboxConfig: pod,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "main"}, Image: &cri.ImageSpec{Image: pulled.ImageRef},
			Command: []string{"sh", "-c", "trap 'exit 7' TERM; echo said; while :; do sleep 0.1; done"},
			Envs:    []*cri.KeyValue{{Key: "KEY", Value: "wört"}}, LogPath: "main.log",
			Linux: &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}},
		},
	})
	check("CreateContainer", err)
	container := created.ContainerId
	_, err = runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: container})
	check("StartContainer", err)
	executed, err := runtime.ExecSync(ctx, &cri.ExecSyncRequest{
		ContainerId: container, Cmd: []string{"sh", "-c", "echo $KEY $(hostname)"}, Timeout: 10})
	check("ExecSync", err)
	expect("what the command said", string(executed.Stdout), "wört old-host\n")
	listed, err := runtime.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{Id: container}})
	check("ListContainers", err)
	expect("how many containers there are", len(listed.Containers), 1)
	_, err = runtime.ContainerStats(ctx, &cri.ContainerStatsRequest{ContainerId: container})
	check("ContainerStats", err)
	waitForLog(logs + "/main.log")

	_, err = runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: container, Timeout: 10})
	check("StopContainer", err)
	ended, err := runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: container})
	check("ContainerStatus", err)
	expect("the exit code", ended.Status.ExitCode, int32(7))
	_, err = runtime.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: container})
	check("RemoveContainer", err)
	_, err = runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: ran.PodSandboxId})
	check("StopPodSandbox", err)
	_, err = runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: ran.PodSandboxId})
	check("RemovePodSandbox", err)
	_, err = runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: ran.PodSandboxId})
	expect("the code for a pod that is gone", status.Code(err), codes.NotFound)
	_, err = images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: image}})
	check("RemoveImage", err)
	fmt.Println("v1alpha2: a pod's life went as it should")
}

func waitForLog(path string) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if text, _ := os.ReadFile(path); bytes.HasSuffix(text, []byte(" stdout F said\n")) {
			return
		} else if time.Now().After(deadline) {
			fail(fmt.Sprintf("the log is %q", text))
		}
	}
}

func check(what string, err error) {
	if err != nil {
		fail(fmt.Sprintf("%s: %v", what, err))
	}
}

func expect[T comparable](what string, got, want T) {
	if got != want {
		fail(fmt.Sprintf("%s: %v in place of %v", what, got, want))
	}
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, "v1alpha2:", why)
	os.Exit(1)
}
