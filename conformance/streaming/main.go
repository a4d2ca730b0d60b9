// Kubernetes' own streaming clients (client-go's remotecommand over SPDY and WebSocket, its portforward over SPDY and the tunnel) against
// the streaming server by itself, which crates/stream's example `serve` runs with commands of this host:
//
//	cargo build -p stream --example serve && go run . ../../target/debug/examples/serve [MEBIBYTES]
//
// MEBIBYTES is how much goes through exec both ways at once, 32 unless told otherwise.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"
)

// server is the running example, which answers each line with a URL.
type server struct {
	process *exec.Cmd
	in      io.Writer
	out     *bufio.Reader
}

func (s *server) url(format string, args ...any) *url.URL {
	fmt.Fprintf(s.in, format+"\n", args...)
	line, err := s.out.ReadString('\n')
	must(err)
	found, err := url.Parse(strings.TrimSpace(line))
	must(err)
	return found
}

// memory is what the server has in memory now and had at most.
func (s *server) memory() string {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.Process.Pid))
	var found []string
	for _, line := range strings.Split(string(status), "\n") {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "VmHWM") {
			found = append(found, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(found, ", ")
}

var failures int

func check(name string, ok bool, why ...any) {
	if ok {
		fmt.Println("ok    ", name)
		return
	}
	failures++
	fmt.Println("FAILED", name, why)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func executor(websocket bool, address *url.URL) remotecommand.Executor {
	config := &rest.Config{Host: address.Host}
	if websocket {
		made, err := remotecommand.NewWebSocketExecutor(config, "GET", address.String())
		must(err)
		return made
	}
	made, err := remotecommand.NewSPDYExecutor(config, "POST", address)
	must(err)
	return made
}

type sizes chan *remotecommand.TerminalSize

func (s sizes) Next() *remotecommand.TerminalSize { return <-s }

func noise(seed, length int64) io.Reader {
	return io.LimitReader(rand.New(rand.NewSource(seed)), length)
}

func remote(s *server, transport string, mebibytes int64) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	run := func(options remotecommand.StreamOptions, format string, args ...any) error {
		return executor(transport == "websocket", s.url(format, args...)).StreamWithContext(ctx, options)
	}
	var stdout, stderr bytes.Buffer
	err := run(remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr}, "exec oe echo out; echo err >&2; exit 7")
	var code utilexec.CodeExitError
	ok := errors.As(err, &code) && code.Code == 7 && stdout.String() == "out\n" && stderr.String() == "err\n"
	check(transport+": output and exit code", ok, stdout.String(), stderr.String(), err)

	stdout.Reset()
	err = run(remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &stdout}, "exec io cat")
	check(transport+": the end of input reaches cat", err == nil && stdout.String() == "hello", stdout.String(), err)

	stdout.Reset()
	err = run(remotecommand.StreamOptions{Stdout: &stdout}, "exec o sleep 10 & echo x")
	check(transport+": a child in the background is not waited for", err == nil && stdout.String() == "x\n", stdout.String(), err)

	stdout.Reset()
	err = run(remotecommand.StreamOptions{Stdout: &stdout}, "attach o echo attached; exit 3")
	check(transport+": attach", err == nil && stdout.String() == "attached\n", stdout.String(), err)

	stdout.Reset()
	size := make(sizes, 1)
	size <- &remotecommand.TerminalSize{Width: 101, Height: 33}
	keys, typing := io.Pipe()
	go func() {
		time.Sleep(time.Second)
		fmt.Fprint(typing, "word\n")
		close(size)
	}()
	err = run(remotecommand.StreamOptions{Stdin: keys, Stdout: &stdout, Tty: true, TerminalSizeQueue: size}, "exec iot read x; stty size; echo got $x")
	ok = err == nil && strings.Contains(stdout.String(), "33 101") && strings.Contains(stdout.String(), "got word")
	check(transport+": a terminal", ok, stdout.String(), err)

	sent, got := sha256.New(), sha256.New()
	start := time.Now()
	err = run(remotecommand.StreamOptions{Stdin: io.TeeReader(noise(1, mebibytes<<20), sent), Stdout: got}, "exec io cat")
	check(transport+": much both ways", err == nil && bytes.Equal(sent.Sum(nil), got.Sum(nil)), err)
	fmt.Printf("       %d MiB each way, %.0f MiB/s; %s\n", mebibytes, float64(mebibytes)/time.Since(start).Seconds(), s.memory())

	short, stop := context.WithTimeout(ctx, 200*time.Millisecond)
	defer stop()
	err = executor(transport == "websocket", s.url("exec io sleep 10")).StreamWithContext(short, remotecommand.StreamOptions{Stdin: keys, Stdout: &stdout})
	check(transport+": a client that goes away", errors.Is(err, context.DeadlineExceeded), err)
}

func forward(s *server, transport string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				io.Copy(connection, connection)
			}()
		}
	}()
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	address := s.url("forward %d", port)
	config := &rest.Config{Host: address.Host}
	var dialer httpstream.Dialer
	if transport == "tunnel" {
		dialer, err = portforward.NewSPDYOverWebsocketDialer(address, config)
		must(err)
	} else {
		roundTripper, upgrader, err := spdy.RoundTripperFor(config)
		must(err)
		dialer = spdy.NewDialer(upgrader, &http.Client{Transport: roundTripper}, "POST", address)
	}
	stop, ready, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	forwarder, err := portforward.New(dialer, []string{fmt.Sprintf("0:%d", port)}, stop, ready, io.Discard, os.Stderr)
	must(err)
	go func() { done <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-done:
		check("port-forward, "+transport, false, err)
		return
	}
	ports, err := forwarder.GetPorts()
	must(err)
	var group sync.WaitGroup
	var bad atomic.Int32
	for at := range 50 {
		group.Go(func() {
			connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
			must(err)
			defer connection.Close()
			sent, got := sha256.New(), sha256.New()
			go func() {
				io.Copy(io.MultiWriter(connection, sent), noise(int64(at), 1<<20))
				connection.(*net.TCPConn).CloseWrite()
			}()
			io.Copy(got, connection)
			if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
				bad.Add(1)
			}
		})
	}
	group.Wait()
	check("port-forward, "+transport+": 50 connections at once", bad.Load() == 0, bad.Load())
	fmt.Println("      ", s.memory())
	close(stop)
	<-done
}

func main() {
	mebibytes := int64(32)
	if len(os.Args) > 2 {
		var err error
		mebibytes, err = strconv.ParseInt(os.Args[2], 10, 64)
		must(err)
	}
	process := exec.Command(os.Args[1])
	process.Stderr = os.Stderr
	in, err := process.StdinPipe()
	must(err)
	out, err := process.StdoutPipe()
	must(err)
	must(process.Start())
	s := &server{process, in, bufio.NewReader(out)}
	for _, transport := range []string{"spdy", "websocket"} {
		remote(s, transport, mebibytes)
	}
	forward(s, "spdy")
	forward(s, "tunnel")
	in.Close()
	process.Wait()
	if failures > 0 {
		os.Exit(1)
	}
}
