// What `cargo xtask cluster` needs and no package has: a gRPC health server to probe inside a container, and Kubernetes' own streaming
// clients pointed at a kubelet without an API server.
//
//	agent health ADDRESS [SECONDS]           serves gRPC health checking; not serving any more after SECONDS
//	agent exec spdy|websocket URL [tty]      exec or attach with what is on standard input; its exit code is that of the command
//	agent forward spdy|websocket URL PORT    forwards a local port, sends standard input through it and prints the answer
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"
)

func main() {
	var err error
	switch args := os.Args[1:]; {
	case len(args) >= 2 && args[0] == "health":
		err = serve(args[1], args[2:])
	case len(args) >= 3 && args[0] == "exec":
		err = execute(args[1], args[2], len(args) > 3)
	case len(args) == 4 && args[0] == "forward":
		err = forward(args[1], args[2], args[3])
	default:
		err = errors.New("usage: agent health|exec|forward ...")
	}
	var code utilexec.CodeExitError
	if errors.As(err, &code) {
		os.Exit(code.Code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(255)
	}
}

func serve(address string, until []string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server, state := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(server, state)
	if len(until) > 0 {
		seconds, err := strconv.Atoi(until[0])
		if err != nil {
			return err
		}
		time.AfterFunc(time.Duration(seconds)*time.Second, func() {
			state.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
		})
	}
	return server.Serve(listener)
}

// kubelet is how one is spoken to that admits everybody and whose certificate is its own.
func kubelet(address *url.URL) *rest.Config {
	return &rest.Config{Host: address.Host, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

func execute(transport, address string, tty bool) error {
	target, err := url.Parse(address)
	if err != nil {
		return err
	}
	var executor remotecommand.Executor
	if transport == "websocket" {
		executor, err = remotecommand.NewWebSocketExecutor(kubelet(target), "GET", address)
	} else {
		executor, err = remotecommand.NewSPDYExecutor(kubelet(target), "POST", target)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	options := remotecommand.StreamOptions{Stdout: os.Stdout, Stderr: os.Stderr, Tty: tty}
	if target.Query().Has("input") {
		options.Stdin = os.Stdin
	}
	if tty {
		options.Stderr = nil
	}
	return executor.StreamWithContext(ctx, options)
}

func forward(transport, address, port string) error {
	target, err := url.Parse(address)
	if err != nil {
		return err
	}
	round, upgrader, err := spdy.RoundTripperFor(kubelet(target))
	if err != nil {
		return err
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: round}, "POST", target)
	if transport == "websocket" {
		if dialer, err = portforward.NewSPDYOverWebsocketDialer(target, kubelet(target)); err != nil {
			return err
		}
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	defer close(stop)
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{":" + port}, stop, ready, io.Discard, os.Stderr)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		return err
	case <-time.After(20 * time.Second):
		return errors.New("the port is not forwarded within 20 s")
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		return err
	}
	connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
	if err != nil {
		return err
	}
	go func() {
		io.Copy(connection, os.Stdin)
		connection.(*net.TCPConn).CloseWrite()
	}()
	connection.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, err = io.Copy(os.Stdout, connection)
	return err
}
