package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// The whole of it with little of everything.
func TestBenchMeasuresScale(t *testing.T) {
	proctest.Need(t, "redis-server")
	file := filepath.Join(t.TempDir(), "out.json")
	var stdout, stderr bytes.Buffer
	err := run(t.Context(), strings.Fields(
		"-scale -replicas 0,2 -write-rates 2000,500 -users 300 -rounds 2 -duration 200ms -json "+file), &stdout, &stderr)
	require.NoError(t, err, stderr.String())
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var got report
	require.NoError(t, json.Unmarshal(text, &got))
	require.NotEmpty(t, got.Machine.Redis)
	require.Empty(t, got.Parts)

	r := got.Scale
	require.Len(t, r.Writes, 2*len(scaleWrites))
	for _, row := range r.Writes {
		require.Len(t, row.Rounds, 2)
		for _, f := range row.Rounds {
			require.Positive(t, f.Writes, row.Write)
			require.Positive(t, f.PerSecond, row.Write)
		}
	}
	require.Len(t, r.Lines, len(scaleWrites))
	require.Len(t, r.Rates, 2, "of the replicas that there are")
	require.Equal(t, 500, r.Rates[0].Rate)
	require.Len(t, r.Rates[0].Rounds, 2)
	for _, f := range r.Rates[0].Rounds {
		require.Positive(t, f.Max, "some write was known later than acknowledged")
		require.GreaterOrEqual(t, f.P99, f.P50)
		require.Positive(t, f.Answered)
	}
	require.Len(t, r.Knees, 1)
	require.Equal(t, 2, r.Beats.Replicas)
	require.Positive(t, r.Beats.Commands)

	m := r.Memory
	require.Equal(t, 300, m.Sessions)
	require.Greater(t, m.Record, float64(m.Text))
	require.Len(t, m.Usage, 4)
	require.Equal(t, int64(300), m.Keys, "in broadcast mode nothing is remembered")
	require.Equal(t, int64(600), m.Items)
	require.Len(t, m.Calls, 4)
	for _, c := range m.Calls {
		require.Greater(t, c.Commands, 1.0, c.Call)
	}
	require.Contains(t, stdout.String(), "A replica that has nothing to do: ")
}

func TestScaleOptions(t *testing.T) {
	parse := func(args string) *scaleOptions {
		o, err := parseOptions(strings.Fields(args), io.Discard)
		require.NoError(t, err, args)
		require.Empty(t, o.parts, "nothing else is measured")
		o.scale.seed = 0
		return o.scale
	}
	rates := []int{1000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000}
	require.Equal(t, &scaleOptions{
		replicas: []int{0, 1, 2, 4, 8}, rates: rates, sessions: 20_000, rounds: 3, window: time.Second,
	}, parse("-scale"))
	require.Equal(t, &scaleOptions{
		replicas: []int{0, 1, 2, 4, 8}, rates: rates, sessions: 20_000, rounds: 2, window: time.Second,
	}, parse("-scale -quick"))
	require.Equal(t, &scaleOptions{
		replicas: []int{3}, rates: []int{10, 200}, sessions: 10_000, rounds: 5, window: 4 * time.Second,
	}, parse("-scale -replicas 3 -write-rates 200,10 -users 10000 -rounds 5 -duration 4s"))

	for args, want := range map[string]string{
		"-scale -replicas 65":      "-replicas: expected different whole numbers from 0 to 64",
		"-scale -replicas 1,1":     "-replicas: expected different whole numbers",
		"-scale -write-rates 0":    "-write-rates: expected different whole numbers from 1",
		"-scale -write-rates 5,":   "-write-rates: expected",
		"-scale -users 0":          "-users: expected",
		"-scale -rounds 0":         "-rounds, -duration and -warmup must be more than 0",
		"-scale -duration 0s":      "-rounds, -duration and -warmup must be more than 0",
		"-scale -all":              "-scale is a run of its own",
		"-scale -sweep":            "-scale is a run of its own",
		"-scale -freshness":        "-scale is a run of its own",
		"-scale -svg somewhere.go": "-scale is a run of its own",
	} {
		var stderr bytes.Buffer
		_, err := parseOptions(strings.Fields(args), &stderr)
		require.ErrorIs(t, err, errUsage, args)
		require.Contains(t, stderr.String(), want, args)
	}
	o, err := parseOptions(nil, io.Discard)
	require.NoError(t, err)
	require.Nil(t, o.scale)
}

func TestDelays(t *testing.T) {
	const ms = int64(time.Millisecond)
	acked := []mark{{10, 100 * ms}, {20, 200 * ms}, {50, 300 * ms}, {60, 400 * ms}}
	// Of a replica that had dropped 1,000 before. The last write is never known.
	dropped := []mark{{1005, 90 * ms}, {1010, 103 * ms}, {1049, 295 * ms}, {1055, 310 * ms}}
	got := delaysOf(acked, dropped, 1000)
	require.Equal(t, []delay{
		{3 * time.Millisecond, 10},
		{95 * time.Millisecond, 10}, // known with a later one
		{10 * time.Millisecond, 30},
	}, got)
	require.Equal(t, 10*time.Millisecond, delayAt(got, 0.5), "each write counts, not each batch")
	require.Equal(t, 10*time.Millisecond, delayAt(got, 0.8))
	require.Equal(t, 95*time.Millisecond, delayAt(got, 0.99))
	require.Equal(t, 3*time.Millisecond, delayAt(got, 0.2))
	require.Equal(t, []delay{{0, 5}}, delaysOf([]mark{{5, 20}}, []mark{{5, 10}}, 0), "before its acknowledgement")
	require.Empty(t, delaysOf(acked, nil, 0))
	require.Zero(t, delayAt(nil, 0.5))
}

func TestLineThrough(t *testing.T) {
	at0, slope, ok := lineThrough([]float64{0, 1, 2, 4}, []float64{3, 3.5, 4, 5})
	require.True(t, ok)
	require.InDelta(t, 3, at0, 1e-9)
	require.InDelta(t, 0.5, slope, 1e-9)
	_, slope, ok = lineThrough([]float64{0, 2, 4}, []float64{0, 3, 3})
	require.True(t, ok)
	require.InDelta(t, 0.75, slope, 1e-9, "of the nearest line")
	for _, x := range [][]float64{nil, {4}, {4, 4}} {
		_, _, ok = lineThrough(x, make([]float64, len(x)))
		require.False(t, ok)
	}
}

func TestKnee(t *testing.T) {
	row := func(rate int, f rateFigures) rateRow {
		return rateRow{Replicas: 4, Rate: rate, Rounds: []rateFigures{f}, Median: f}
	}
	fine := func(rate int) rateRow { return row(rate, rateFigures{PerSecond: float64(rate), P99: 1, Redis: 50}) }
	for name, tc := range map[string]struct {
		rows []rateRow
		want knee
	}{
		"all in order":      {[]rateRow{fine(10), fine(20)}, knee{Replicas: 4, Rate: 20}},
		"later ones unread": {[]rateRow{fine(10), {Replicas: 4, Rate: 20}}, knee{Replicas: 4, Rate: 10}},
		"none in order": {
			[]rateRow{row(10, rateFigures{PerSecond: 9})},
			knee{Replicas: 4, Next: 10, Trouble: troubleMade},
		},
		"late": {
			[]rateRow{fine(10), row(20, rateFigures{PerSecond: 20, P99: 25.1, Busy: 95}), fine(30)},
			knee{Replicas: 4, Rate: 10, Next: 20, Trouble: troubleP99, Full: true},
		},
		"full": {
			[]rateRow{fine(10), row(20, rateFigures{PerSecond: 15, P99: 30, Redis: 96})},
			knee{Replicas: 4, Rate: 10, Next: 20, Trouble: troubleRedis},
		},
		"dropped": {
			[]rateRow{fine(10), row(20, rateFigures{PerSecond: 20, Lost: 1})},
			knee{Replicas: 4, Rate: 10, Next: 20, Trouble: troubleLost},
		},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, kneeOf(tc.rows)) })
	}
	require.True(t, rateFigures{PerSecond: 98, P99: 30, Redis: 94}.kept(100), "what is late may be kept")
	require.False(t, rateFigures{PerSecond: 97.9}.kept(100))
	require.False(t, rateFigures{PerSecond: 100, Redis: 95}.kept(100))
}

// scaleSample is a run of two rounds; the second one was slower.
func scaleSample() *report {
	write := func(kind string, replicas int, redis float64) writeRow {
		return writeRow{Write: kind, Replicas: replicas, Rounds: []writeFigures{
			{Writes: 100_000, PerSecond: 200_000, Redis: redis, Writer: 1, Replica: 1.5, Others: 0.01},
			{Writes: 80_000, PerSecond: 100_000, Redis: redis + 1, Writer: 1, Replica: 2.5, Others: 0.03},
		}}
	}
	rate := func(replicas, rate int, p99 float64) rateRow {
		return rateRow{Replicas: replicas, Rate: rate, Rounds: []rateFigures{
			{PerSecond: float64(rate), P50: 0.1, P99: p99, Max: 9, Redis: 10, Replica: 5, Busy: 30, Answered: 99},
			{PerSecond: float64(rate), P50: 0.2, P99: p99, Max: 12.34, Redis: 20, Replica: 6, Busy: 40, Answered: 97},
		}}
	}
	r := &report{
		Machine: machine{CPU: "Abacus 3000", Cores: 2, Kernel: "6.1", LoadAvg: "0.01", Go: "1.26.0", Redis: "7.0.15"},
		Rounds:  2,
		Scale: &scaleReport{
			Window: 1,
			Writes: []writeRow{write(writeSet, 0, 2), write(writeExpire, 0, 1), write(writeSet, 4, 6), write(writeExpire, 4, 3)},
			Rates:  []rateRow{rate(1, 1000, 1), rate(1, 5000, 2), rate(4, 1000, 1.5), rate(4, 5000, 30)},
			Beats:  beatsReport{Replicas: 4, Commands: 8, Redis: 0.1, Replica: 0.2},
			Memory: redisMemory{
				Sessions: 20_000, Record: 900, Profile: 175.4, Seen: 150, Text: 464, Freed: 700,
				Usage:      map[string]int64{partRecord: 1600, partIndex: 152, partUser: 168, partSeen: 104},
				Remembered: 147, Further: 71, Broadcast: -0.2, Replica: 124_000, Keys: 20_000, Items: 40_000,
				Calls: []callCost{{"login", 61.2, 7}},
			},
		},
	}
	r.Scale.summarize()
	return r
}

func TestScaleMarkdown(t *testing.T) {
	var got bytes.Buffer
	require.NoError(t, scaleSample().writeMarkdown(&got))
	require.Equal(t, `Machine: 2 cores (Abacus 3000), kernel 6.1, load average before the run 0.01. Go 1.26.0, Redis 7.0.15.

What a write costs that so many replicas hear of: one writer, as fast as it can, as a pipeline where nothing else is said; 2 rounds of 1 s. CPU in µs, that of a replica per announcement.

| write            | replicas | writes/s | Redis | one replica | (writer) |
|------------------|---------:|---------:|------:|------------:|---------:|
| SET of a session |        0 |   150000 |  2.50 |           – |     1.00 |
| EXPIRE (a touch) |        0 |   150000 |  1.50 |           – |     1.00 |
| SET of a session |        4 |   150000 |  6.50 |        2.00 |     1.00 |
| EXPIRE (a touch) |        4 |   150000 |  3.50 |        2.00 |     1.00 |

SET of a session: about 2.50 µs of Redis, and 1.00 µs more for each replica.
EXPIRE (a touch): about 1.50 µs of Redis, and 0.500 µs more for each replica.

A steady rate of SETs: time from the acknowledgement until a replica has dropped the session, in ms; CPU in percent of a core, busy in percent of the machine; lookups of another session meanwhile that the cache answered, in percent.

| replicas | writes/s | made |   p50 |  p99 |  max | Redis | one replica | busy | from the cache |
|----------|---------:|-----:|------:|-----:|-----:|------:|------------:|-----:|---------------:|
| 1        |    1,000 | 1000 | 0.150 | 1.00 | 12.3 |  15.0 |        5.50 | 35.0 |           98.0 |
| 1        |    5,000 | 5000 | 0.150 | 2.00 | 12.3 |  15.0 |        5.50 | 35.0 |           98.0 |
| 4        |    1,000 | 1000 | 0.150 | 1.50 | 12.3 |  15.0 |        5.50 | 35.0 |           98.0 |
| 4        |    5,000 | 5000 | 0.150 | 30.0 | 12.3 |  15.0 |        5.50 | 35.0 |           98.0 |

With 1 replica: 5,000 writes/s and more.
With 4 replicas: 1,000 writes/s, not 5,000 (p99 above 25 ms).

Memory of Redis, bytes each, with 20,000 sessions of as many users; a record is 464 B of JSON.

| what                                              | used_memory |            MEMORY USAGE |
|---------------------------------------------------|------------:|------------------------:|
| record, and its entry in the user's index         |         900 |             1,600 + 152 |
| profile of the user                               |         175 |                     168 |
| time of use                                       |         150 |                     104 |
| all of it                                         |        1225 | 1,600 + 152 + 168 + 104 |
| given back by a logout                            |         700 |                       – |
| default-mode tracking, per key that a client read |         147 |                       – |
| the same, per further client                      |          71 |                       – |
| broadcast mode, per key that a client read        |           0 |                       – |
| broadcast mode, per replica                       |      124000 |                       – |

With two clients in default mode Redis remembered 20,000 keys and 40,000 pairs of key and client.

What Redis does for one call while nobody listens: CPU in µs, and commands, those within scripts included.

| call  | Redis | commands |
|-------|------:|---------:|
| login |  61.2 |     7.00 |

A replica that has nothing to do: 8.00 commands per second, 0.100 % of a core of Redis, 0.200 % of its own (mean of 4).

Other processes took 1 % of the machine meanwhile.
`, got.String())
	noisy := scaleSample()
	noisy.Scale.Rates[0].Rounds[0].Others = 1
	got.Reset()
	require.NoError(t, noisy.writeMarkdown(&got))
	require.Contains(t, got.String(), "**The machine was not quiet")
}

// A full machine answers late; a Redis that refuses must not count as one that
// writes.
func TestWriterTakesNoOtherAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				buffer := make([]byte, 64<<10)
				for {
					if _, err := c.Read(buffer); err != nil {
						return
					}
					if _, err := c.Write(bytes.Repeat([]byte("-OOM command not allowed\r\n"), 100)); err != nil {
						return
					}
				}
			}()
		}
	}()
	writer := func() *writer {
		w, err := newWriter(t.Context(), l.Addr().String(), writeSet, 10, time.Now())
		require.NoError(t, err)
		t.Cleanup(func() { _ = w.close() })
		return w
	}
	_, err = writer().flood(t.Context(), 10*time.Second)
	require.ErrorContains(t, err, `an answer of Redis is "-OOM`)
	_, err = writer().single(t.Context(), 10*time.Second)
	require.ErrorContains(t, err, `an answer of Redis is "-OOM`)
	_, err = writer().steady(t.Context(), 100, 10*time.Second)
	require.ErrorContains(t, err, `an answer of Redis is "-OOM`)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = writer().flood(ctx, 10*time.Second)
	require.ErrorIs(t, err, context.Canceled)
}

func TestWritersCommands(t *testing.T) {
	require.Equal(t, "*3\r\n$6\r\nEXPIRE\r\n$3\r\nkey\r\n$2\r\n60\r\n", string(command("EXPIRE", "key", "60")))
	require.Len(t, scaleID(7), idLen)
	require.Len(t, scaleID(123_456), idLen)
	require.NotEqual(t, scaleID(1), scaleID(10))
}

func TestInfoNumber(t *testing.T) {
	const info = "# Memory\r\nused_memory:1048576\r\nused_memory_human:1.00M\r\n"
	got, err := infoNumber(info, "used_memory")
	require.NoError(t, err)
	require.Equal(t, int64(1<<20), got)
	_, err = infoNumber(info, "tracking_total_keys")
	require.ErrorContains(t, err, "INFO has no tracking_total_keys")
	_, err = infoNumber(info, "used_memory_human")
	require.Error(t, err)
}
