package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

const password = "0123456789abcdef"

// starter runs a start script with a program in place of Redis that only says
// how it was called.
type starter struct{ script, template, program, data string }

func newStarter(t *testing.T, script, template, program string) starter {
	t.Helper()
	return starter{"compose/redis/" + script, "compose/redis/" + template, program, t.TempDir()}
}

func (s starter) conf() string { return filepath.Join(s.data, filepath.Base(s.template)) }

// run returns what the script wrote: lines of the configuration without
// comments.
func (s starter) run(t *testing.T, env ...string) (lines []string, output string, err error) {
	t.Helper()
	bin := t.TempDir()
	fake := "#!/bin/sh\necho \"$0 $*\"\n"
	require.NoError(t, os.WriteFile(filepath.Join(bin, s.program), []byte(fake), 0o755))
	cmd := exec.CommandContext(t.Context(), "sh", s.script)
	cmd.Env = append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "TEMPLATE=" + s.template, "DATA=" + s.data}, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, string(out), err
	}
	for line := range strings.Lines(string(read(t, s.conf()))) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	info, err := os.Stat(s.conf())
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "it holds the password")
	require.Equal(t, filepath.Join(bin, s.program)+" "+s.conf()+"\n", string(out), "no password on the command line")
	return lines, string(out), nil
}

// TestStartRedisKeepsTheRole: a node that a failover made a replica must not be
// a master again because its container is new. It lacks what was written since,
// and the true master would throw that away to follow it.
func TestStartRedisKeepsTheRole(t *testing.T) {
	for _, c := range []struct {
		name      string
		replicaOf string // what docker-compose.yml says
		left      string // redis.conf as Redis left it; "" for the first start
		want      string // the role, "" for master
	}{
		{"the first master, at first", "", "", ""},
		{"the first replica, at first", "redis-1 6379", "", "replicaof redis-1 6379"},
		{"the first master, still master", "", "port 6379\nappendonly yes\n", ""},
		{"the first master, made a replica", "", "port 6379\nreplicaof redis-2 6379\n", "replicaof redis-2 6379"},
		{"the first replica, made a master", "redis-1 6379", "port 6379\nappendonly yes\n", ""},
		{"the first replica, still replica", "redis-1 6379", "replicaof redis-1 6379\nport 6379\n", "replicaof redis-1 6379"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStarter(t, "start-redis.sh", "redis.conf", "redis-server")
			if c.left != "" {
				require.NoError(t, os.WriteFile(s.conf(), []byte(c.left), 0o600))
			}
			lines, out, err := s.run(t, "NODE=redis-9", "REPLICA_OF="+c.replicaOf, "REDIS_PASSWORD="+password)
			require.NoError(t, err, out)
			var roles []string
			for _, line := range lines {
				if strings.HasPrefix(line, "replicaof") {
					roles = append(roles, line)
				}
			}
			if c.want == "" {
				require.Empty(t, roles)
			} else {
				require.Equal(t, []string{c.want}, roles)
			}
			require.Contains(t, lines, "appendonly yes", "the settings are those of the template")
			require.Contains(t, lines, "replica-announce-ip redis-9")
			require.Contains(t, lines, "requirepass "+password)
			require.Contains(t, lines, "masterauth "+password)
		})
	}
}

// TestStartSentinelKeepsWhatItKnows, and takes the password from the
// environment, which may have changed.
func TestStartSentinelKeepsWhatItKnows(t *testing.T) {
	s := newStarter(t, "start-sentinel.sh", "sentinel.conf", "redis-sentinel")
	first, out, err := s.run(t, "NODE=sentinel-9", "REDIS_PASSWORD="+password)
	require.NoError(t, err, out)
	require.Contains(t, first, "sentinel monitor mymaster redis-1 6379 2")
	require.Contains(t, first, "sentinel auth-pass mymaster "+password)
	require.Contains(t, first, "sentinel announce-ip sentinel-9")
	require.Contains(t, first, "sentinel resolve-hostnames yes")
	require.Contains(t, first, "sentinel announce-hostnames yes")

	known := strings.Replace(string(read(t, s.conf())), "monitor mymaster redis-1", "monitor mymaster redis-2", 1) +
		"sentinel myid 0123\nsentinel current-epoch 7\n"
	require.NoError(t, os.WriteFile(s.conf(), []byte(known), 0o600))
	again, out, err := s.run(t, "NODE=sentinel-9", "REDIS_PASSWORD=another0password")
	require.NoError(t, err, out)
	require.Contains(t, again, "sentinel monitor mymaster redis-2 6379 2")
	require.Contains(t, again, "sentinel myid 0123")
	require.Contains(t, again, "sentinel current-epoch 7")
	require.Contains(t, again, "sentinel auth-pass mymaster another0password")
	require.NotContains(t, strings.Join(again, "\n"), password)
	require.Len(t, again, len(first)+2, "the same lines, not twice as many")
}

// TestStartRefusesPasswordsThatItWouldMangle: in a configuration file a space
// or a quote would make another password of it, in silence.
func TestStartRefusesPasswordsThatItWouldMangle(t *testing.T) {
	for _, s := range []starter{
		newStarter(t, "start-redis.sh", "redis.conf", "redis-server"),
		newStarter(t, "start-sentinel.sh", "sentinel.conf", "redis-sentinel"),
	} {
		for _, bad := range []string{"", "two words", `quo"te`, "new\nline", "hash#", "umlaut\u00e4"} {
			_, out, err := s.run(t, "NODE=n", "REDIS_PASSWORD="+bad)
			require.Error(t, err, "%s took %q", s.script, bad)
			require.Contains(t, out, "REDIS_PASSWORD", "the error says what to do")
			if bad != "" {
				require.NotContains(t, out, bad, "a secret in the log")
			}
			require.NoFileExists(t, s.conf())
		}
	}
}

// TestRedisTakesTheConfiguration: a real Redis, with what a test has to change.
func TestRedisTakesTheConfiguration(t *testing.T) {
	server := proctest.Need(t, "redis-server")
	cli := proctest.Need(t, "redis-cli")
	s := newStarter(t, "start-redis.sh", "redis.conf", "redis-server")
	_, out, err := s.run(t, "NODE=redis-9", "REDIS_PASSWORD="+password)
	require.NoError(t, err, out)

	here := strings.Replace(string(read(t, s.conf())), "dir /data\n", "dir "+s.data+"\n", 1)
	require.NoError(t, os.WriteFile(s.conf(), []byte(here), 0o600))
	port := strconv.Itoa(proctest.FreePort(t))
	p := proctest.Start(t, server, []string{s.conf(), "--bind", "127.0.0.1", "--port", port}, proc.Options{})
	require.NoError(t, p.Ready(t.Context(), proc.TCP("127.0.0.1:"+port)))

	ask := func(auth string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), cli, append([]string{"-p", port}, args...)...)
		cmd.Env = append(os.Environ(), "REDISCLI_AUTH="+auth)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		return strings.TrimSpace(string(out))
	}
	require.Contains(t, ask("", "get", "sess:x"), "NOAUTH")
	require.Equal(t, "PONG", ask(password, "ping"), "the health check")
	for setting, want := range map[string]string{
		"appendonly": "yes", "maxmemory-policy": "noeviction", "maxmemory": strconv.Itoa(256 << 20), "replica-announce-ip": "redis-9", "save": "",
	} {
		got := strings.Split(ask(password, "config", "get", setting)+"\n", "\n")
		require.Equal(t, want, got[1], setting)
	}
}
