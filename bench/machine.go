package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/redis/go-redis/v9"
)

// machine says where a run took place. What could not be found out is "".
type machine struct {
	CPU       string `json:"cpu"`
	Cores     int    `json:"cores"`
	Kernel    string `json:"kernel"`
	LoadAvg   string `json:"load_average"` // over one minute, before the run
	Go        string `json:"go"`
	Envoy     string `json:"envoy"`
	Redis     string `json:"redis"`
	Gatehouse string `json:"gatehouse"`
}

// newMachine finds out what runs, and on what.
func newMachine(ctx context.Context, s *stack, gatehouse string) machine {
	m := hostMachine()
	m.Envoy = envoyVersion(ctx, s.envoy.Admin)
	m.Redis = redisVersion(ctx, s.redisAddr)
	m.Gatehouse = gatehouseVersion(ctx, gatehouse)
	return m
}

// hostMachine finds out what is the same whatever runs.
func hostMachine() machine {
	firstWord := func(file string) string {
		text, err := os.ReadFile(file) //nolint:gosec // G304: constants
		if err != nil {
			return ""
		}
		word, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
		return word
	}
	return machine{
		CPU:     cpuModel(),
		Cores:   runtime.NumCPU(),
		Kernel:  firstWord("/proc/sys/kernel/osrelease"),
		LoadAvg: firstWord("/proc/loadavg"),
		Go:      strings.TrimPrefix(runtime.Version(), "go"),
	}
}

func (m machine) markdown() string {
	return fmt.Sprintf("Machine: %s. Go %s, Envoy %s (one worker), Redis %s, Gatehouse %s.",
		m.host(), orUnknown(m.Go), orUnknown(m.Envoy), orUnknown(m.Redis), orUnknown(m.Gatehouse))
}

// withoutEnvoy is for runs that have none, and no built Gatehouse.
func (m machine) withoutEnvoy() string {
	return fmt.Sprintf("Machine: %s. Go %s, Redis %s.", m.host(), orUnknown(m.Go), orUnknown(m.Redis))
}

func (m machine) host() string {
	return fmt.Sprintf("%d cores (%s), kernel %s, load average before the run %s",
		m.Cores, orUnknown(m.CPU), orUnknown(m.Kernel), orUnknown(m.LoadAvg))
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// envoyVersion reads a version such as "<commit>/1.40.0/Clean/RELEASE/BoringSSL".
func envoyVersion(ctx context.Context, admin string) string {
	body, err := fetch(ctx, "http://"+admin+"/server_info")
	if err != nil {
		return ""
	}
	var info struct {
		Version string `json:"version"`
	}
	if json.Unmarshal([]byte(body), &info) != nil {
		return ""
	}
	parts := strings.Split(info.Version, "/")
	if len(parts) < 2 {
		return info.Version
	}
	return parts[1]
}

func redisVersion(ctx context.Context, addr string) string {
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	defer func() { _ = rdb.Close() }()
	info, err := rdb.Info(ctx, "server").Result()
	if err != nil {
		return ""
	}
	for line := range strings.Lines(info) {
		if version, ok := strings.CutPrefix(line, "redis_version:"); ok {
			return strings.TrimSpace(version)
		}
	}
	return ""
}

func gatehouseVersion(ctx context.Context, binary string) string {
	out, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(out)) // gatehouse version X
	if len(fields) == 0 {
		return ""
	}
	return fields[len(fields)-1]
}
