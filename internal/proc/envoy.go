package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"go.yaml.in/yaml/v4"
)

// Envoy is a running Envoy.
type Envoy struct {
	*Process
	Admin string // host:port of its admin interface; "" for none
}

// EnvoyOptions configure [StartEnvoy].
type EnvoyOptions struct {
	Dir         string   // where the configuration is written; required
	Concurrency int      // worker threads; 0 for 1
	LogLevel    string   // "" for warning
	Args        []string // added at the end
	Output      io.Writer
}

// StartEnvoy runs Envoy with a configuration and returns when it is ready:
// when its admin interface says so, or, without one, when its first listener
// accepts connections. The error is a *[NotFoundError] when none is installed.
//
// Several can run at a time: each finds its own shared-memory region, and hot
// restart is off. Relative file names in the configuration count from our
// working directory. The access log is flushed every 100 ms, not every 10 s. An
// Envoy that doesn't know admin.allow_paths runs without it.
func StartEnvoy(ctx context.Context, config []byte, o EnvoyOptions) (*Envoy, error) {
	path, err := Find("envoy")
	if err != nil {
		return nil, err
	}
	admin, probe, err := envoyProbe(config)
	if err != nil {
		return nil, err
	}
	version, err := VersionOfEnvoy(ctx)
	if err != nil {
		return nil, err
	}
	if config, err = FitEnvoy(config, version); err != nil {
		return nil, err
	}
	file := filepath.Join(o.Dir, "envoy.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, fmt.Errorf("write Envoy configuration: %w", err)
	}
	level := o.LogLevel
	if level == "" {
		level = "warning"
	}
	args := append([]string{
		"-c", file, "--concurrency", strconv.Itoa(max(1, o.Concurrency)), "--log-level", level,
		"--use-dynamic-base-id", "--disable-hot-restart", "--file-flush-interval-msec", "100",
	}, o.Args...)
	p, err := Start(ctx, path, args, Options{Output: o.Output})
	if err != nil {
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := p.Ready(ready, probe); err != nil {
		_ = p.Stop()
		return nil, err
	}
	return &Envoy{Process: p, Admin: admin}, nil
}

// envoyProbe returns the admin address of a configuration, "" for none, and
// how to find out whether an Envoy with it is ready.
func envoyProbe(config []byte) (admin string, probe Probe, err error) {
	type address struct {
		SocketAddress struct {
			Address   string `yaml:"address"`
			PortValue int    `yaml:"port_value"`
		} `yaml:"socket_address"`
	}
	var bootstrap struct {
		Admin struct {
			Address address `yaml:"address"`
		} `yaml:"admin"`
		StaticResources struct {
			Listeners []struct {
				Address address `yaml:"address"`
			} `yaml:"listeners"`
		} `yaml:"static_resources"`
	}
	if err := yaml.Load(config, &bootstrap); err != nil {
		return "", nil, fmt.Errorf("read Envoy configuration: %w", err)
	}
	hostPort := func(a address) string {
		return net.JoinHostPort(reachable(a.SocketAddress.Address), strconv.Itoa(a.SocketAddress.PortValue))
	}
	if a := bootstrap.Admin.Address; a.SocketAddress.PortValue != 0 {
		return hostPort(a), HTTP("http://" + hostPort(a) + "/ready"), nil
	}
	if len(bootstrap.StaticResources.Listeners) == 0 {
		return "", nil, errors.New("the Envoy configuration has neither an admin address nor a listener to ask whether it is ready")
	}
	return "", TCP(hostPort(bootstrap.StaticResources.Listeners[0].Address)), nil
}

// reachable is the address by which a listener on host is reached from here.
func reachable(host string) string {
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return "127.0.0.1"
	}
	return host
}
